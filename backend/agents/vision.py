"""The vision agent looks at one picture and answers a question about it.

Nodes: load_image → analyse → report, and then structure if there is an `output_schema`. With tools,
analyse ↔ tool. The state holds facts and never bytes, so that checkpoints stay small. A later node takes the picture
from the process's cache, or fetches it again if the run was resumed elsewhere.
"""

import asyncio
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, optional_text, required_text
from backend.agents.structured import add_structure
from backend.agents.tools.node import add_tools, asking, said
from backend.models.offline.image_measurements import PaletteColour, measure
from backend.models.offline.page_layout import TextRegion
from backend.models.prompts.document import instructions
from backend.models.prompts.picture import show_picture
from backend.models.reply import Model, local_analysis, notice_of
from backend.pictures.picture import LoadedImage

SYSTEM_PROMPT = (
    "You analyse one picture. Answer the question from what is visible; say so when something can't be seen "
    "or read. Quote text in the picture exactly."
)
DEFAULT_QUERY = "Describe this picture: what it shows, the text in it, and anything notable."


class VisionInput(TypedDict, total=False):
    """`image_url` is an `https://`, `data:image/…;base64,` or `upload://<uuid>` address; `query` is optional."""

    query: str | None
    image_url: str


class VisionOutput(TypedDict, total=False):
    """The agent's result.

    `image` has the picture's `PictureFacts`. Boxes are `[left, top, right, bottom]` in pixels of `image.width` ×
    `image.height`. `text` is None and `text_regions` is empty unless OCR has read the text. `offline` says that no
    vision model was involved; `notice` explains what that means. `data` is the answer in the
    form of the `output_schema`, if there is one.

    `notice` also names the pages that were not looked at and the scripts that can't be read. Of a document whose text
    was read by OCR, `text` is that of all pages and `text_regions` are the first page's; `pages` holds `page, width,
    height, text_regions` of each.
    """

    answer: str
    image: dict[str, Any]
    text: str | None
    text_regions: list[TextRegion]
    pages: list[dict[str, Any]]
    palette: list[PaletteColour]
    brightness: float
    contrast: float
    sharpness: float
    offline: bool
    notice: str | None
    data: dict[str, Any]


class ShownFacts(TypedDict):
    """What a model saw: for each image the page, its size, and its box in that page; and what it did not see."""

    parts: list[dict[str, Any]]
    notice: str | None


class VisionState(VisionInput, VisionOutput, total=False):
    """The graph's state. `reply` is the model's unmodified answer, `shown` what it saw of the picture, and
    `conversation` what tools have to do with it."""

    reply: AIMessage
    conversation: Annotated[list[AnyMessage], operator.add]
    shown: ShownFacts


def build(
    config: AgentConfig, model: Model, deps: AgentDeps
) -> StateGraph[VisionState, None, VisionInput, VisionOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer."""
    max_side = deps.max_image_side or deps.settings.model_image_side

    async def loaded(state: VisionState) -> LoadedImage:
        source = required_text(state, "image_url").strip()
        return await deps.images.load(source, deps.settings, read_upload=deps.read_upload)

    async def load_image(state: VisionState) -> dict[str, Any]:
        optional_text(state, "query")
        picture = await loaded(state)
        return {"image": picture.facts.as_dict(), **await asyncio.to_thread(_measured, picture)}

    async def analyse(state: VisionState) -> dict[str, Any]:
        picture = await loaded(state)
        query = optional_text(state, "query") or DEFAULT_QUERY
        # Offline a long strip is read in pieces, but laid out as one page.
        shown = await show_picture(picture, max_side, tiled=not deps.offline)
        asked = await asking(model, deps.toolbox)
        reply = await asked.ainvoke(
            [
                instructions(config.system_prompt or SYSTEM_PROMPT),
                HumanMessage([{"type": "text", "text": query}, *shown.blocks]),
                *(state.get("conversation") or ()),
            ]
        )
        seen = {**said(deps.toolbox, reply), "shown": ShownFacts(parts=shown.places(), notice=shown.notice)}
        # After a resume the picture is fetched again and may have changed: the facts must be those of the picture
        # that the model saw.
        if picture.facts.sha256 != state["image"]["sha256"]:
            facts = {"image": picture.facts.as_dict(), **await asyncio.to_thread(_measured, picture)}
            return {**seen, **facts}
        return seen

    async def report(state: VisionState) -> dict[str, Any]:
        reply = state["reply"]
        analysis = local_analysis(reply)
        shown = state.get("shown") or ShownFacts(parts=[], notice=None)
        said = [notice_of(reply), shown["notice"]]
        pages = _pages(analysis or {}, shown["parts"], state["image"])
        return {
            "answer": reply.text,
            "offline": analysis is not None,
            "notice": " ".join(filter(None, said)) or None,
            "text": analysis.get("text") if analysis else None,
            "text_regions": pages[0]["text_regions"] if pages else [],
            **({"pages": pages} if len(pages) > 1 else {}),
        }

    graph = StateGraph(VisionState, input_schema=VisionInput, output_schema=VisionOutput)
    graph.add_node("load_image", load_image)
    graph.add_node("analyse", analyse)
    graph.add_node("report", report)
    graph.add_edge(START, "load_image")
    graph.add_edge("load_image", "analyse")
    add_tools(graph, "analyse", "report", deps.toolbox, "vision")
    add_structure(graph, "report", "answer", config, model, deps)
    return graph


def _measured(picture: LoadedImage) -> dict[str, Any]:
    # 2,048 pixels are twice the side at which measurements are made, and spare decoding a large JPEG at full size.
    return {**measure(picture.upright(2048))}


def _pages(
    analysis: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], image: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The pages with their text regions in pixels of the original: the model saw them downscaled, or in tiles."""
    if not analysis.get("image"):
        return []
    size = [image["width"], image["height"]]
    parts = parts or [{"page": 1, "size": size, "box": [0, 0, *size]}]
    pages: dict[int, dict[str, Any]] = {}
    for part, look in zip(parts, analysis.get("pages", [{**analysis, **analysis["image"]}]), strict=False):
        width, height = part["size"]
        page = pages.setdefault(
            part["page"], {"page": part["page"], "width": width, "height": height, "text_regions": []}
        )
        left, top, right, bottom = part["box"]
        across, down = (right - left) / look["width"], (bottom - top) / look["height"]
        for region in look.get("text_regions", []):
            first, second = (left, top), (across, down)
            box = [round(first[n % 2] + edge * second[n % 2]) for n, edge in enumerate(region["box"])]
            page["text_regions"].append({**region, "box": box})
    return list(pages.values())
