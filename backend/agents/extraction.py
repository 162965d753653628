"""The extraction agent fills an `output_schema` from a text, a picture or both. Nodes: prepare → extract.

Offline there is no language model: fields are found by their labels and by their form, in the text or in what OCR reads
from the picture, and fields that aren't found are null.
"""

import asyncio
from typing import Any, TypedDict

from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, check_length, optional_text
from backend.agents.output_schema import FIELD, load_output_schema
from backend.agents.structured import ask
from backend.core.errors.input_error import InputError
from backend.models.offline.field_extraction import find_fields
from backend.models.prompts.document import fence, instructions
from backend.models.prompts.picture import ShownPicture, show_picture
from backend.models.reply import Model, local_analysis

SYSTEM_PROMPT = (
    "You take data out of the text inside the <text> element and out of the picture, whichever is given. Copy values "
    "exactly and invent none: what isn't there is null, if the form allows it."
)
DEFAULT_QUERY = "Fill every field of the form from what is given."
NOTICE = (
    "Offline extraction: without a hosted model only fields with a label or an unmistakable pattern in the text are "
    "found; the others are null."
)


class ExtractionInput(TypedDict, total=False):
    """At least one of `text` and `image_url`. `query` says what to look for, where the schema alone does not."""

    query: str | None
    text: str | None
    image_url: str | None


class ExtractionOutput(TypedDict, total=False):
    """The agent's result.

    `data` has the form of the `output_schema`, except that offline a field that isn't found is null, whatever the
    schema says. `missing` names the fields that are null or left out. Offline, `evidence` has the line in which each
    value was found. `image` has the picture's `PictureFacts`, or None. `offline` says that no hosted model was
    involved; `notice` explains what that means.
    """

    data: dict[str, Any]
    missing: list[str]
    evidence: dict[str, str]
    image: dict[str, Any] | None
    offline: bool
    notice: str | None


class ExtractionState(ExtractionInput, ExtractionOutput, total=False):
    """The graph's state."""


def build(
    config: AgentConfig, model: Model, deps: AgentDeps
) -> StateGraph[ExtractionState, None, ExtractionInput, ExtractionOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer. Raises `InputError` without a schema."""
    if config.output_schema is None:
        raise InputError("is missing; the extraction agent needs it", field=FIELD)
    schema = load_output_schema(config.output_schema)
    fields = list(schema.json_schema.get("properties", {}))
    max_side = deps.max_image_side or deps.settings.model_image_side

    async def prepare(state: ExtractionState) -> dict[str, Any]:
        text, source = optional_text(state, "text"), optional_text(state, "image_url")
        optional_text(state, "query")
        if text is None and source is None:
            raise InputError("is missing; the agent needs it, or image_url", field="text")
        if text is not None:
            check_length(text, deps)
        if source is None:
            return {"image": None}
        picture = await deps.images.load(source.strip(), deps.settings, read_upload=deps.read_upload)
        return {"image": picture.facts.as_dict()}

    async def extract(state: ExtractionState) -> dict[str, Any]:
        return await (by_rules(state) if deps.offline else by_model(state))

    async def by_model(state: ExtractionState) -> dict[str, Any]:
        text = optional_text(state, "text")
        query = optional_text(state, "query") or DEFAULT_QUERY
        given: list[Any] = [{"type": "text", "text": query if text is None else f"{query}\n{fence(text)}"}]
        shown = await picture_of(state)
        given += shown.blocks if shown else []
        system = instructions(config.system_prompt or SYSTEM_PROMPT)
        data = await ask(model, [system, HumanMessage(given)], schema)
        missing = [name for name in fields if data.get(name) is None]
        notice = shown.notice if shown else None
        return {"data": data, "missing": missing, "evidence": {}, "offline": False, "notice": notice}

    async def by_rules(state: ExtractionState) -> dict[str, Any]:
        texts = [optional_text(state, "text") or ""]
        notices = [NOTICE]
        if shown := await picture_of(state):
            analysis = local_analysis(await model.ainvoke([HumanMessage(shown.blocks)])) or {}
            texts.append(str(analysis.get("text") or ""))
            notices += [*analysis.get("shortcomings", []), *([shown.notice] if shown.notice else [])]
        found = await asyncio.to_thread(find_fields, "\n".join(texts), schema.json_schema)
        return {
            "data": {name: None if hit is None else hit.value for name, hit in found.items()},
            "missing": [name for name, hit in found.items() if hit is None],
            "evidence": {name: hit.line for name, hit in found.items() if hit is not None},
            "offline": True,
            "notice": " ".join(notices),
        }

    async def picture_of(state: ExtractionState) -> ShownPicture | None:
        source = optional_text(state, "image_url")
        if source is None:
            return None
        picture = await deps.images.load(source.strip(), deps.settings, read_upload=deps.read_upload)
        return await show_picture(picture, max_side, tiled=not deps.offline)

    graph = StateGraph(ExtractionState, input_schema=ExtractionInput, output_schema=ExtractionOutput)
    graph.add_node("prepare", prepare)
    graph.add_node("extract", extract)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "extract")
    graph.add_edge("extract", END)
    return graph
