"""The agents from input to output, with the real offline models and with recorded answers of a hosted model."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from PIL import Image
from pydantic import PrivateAttr

from backend.agents.config import AgentConfig, AgentConfigError, AgentDeps
from backend.agents.registry import AGENTS, UnknownAgentError, get_agent
from backend.core.errors.input_error import InputError
from backend.core.settings import Settings
from backend.models.offline.text import NOTICE, LocalText
from backend.models.offline.vision import LocalVision
from backend.models.prompts.document import CONTENT_RULE
from backend.pictures.cache import ImageCache
from backend.pictures.load import ImageInputError
from tests.kit.pictures import INVOICE, camera_exif, encode, invoice, photo
from tests.kit.servers.pictures import PictureServer, answer, serving
from tests.unit.models.test_local_text import ARTICLE

SETTINGS = Settings(_env_file=None, allow_private_images=True)


class HostedModel(GenericFakeChatModel):
    """Replays a hosted model's answer, and keeps the messages that it was sent."""

    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._asked.append(messages)
        return super()._generate(messages, *args, **kwargs)


def hosted(text: str) -> HostedModel:
    return HostedModel(messages=iter([AIMessage(text, response_metadata={"model_name": "gpt-4.1"})] * 3))


def _deps(**values: Any) -> AgentDeps:
    return AgentDeps(SETTINGS, images=ImageCache(), **values)


@pytest.fixture
async def server() -> AsyncIterator[PictureServer]:
    async with serving() as pictures:
        yield pictures


def _data_url(image: Image.Image, image_format: str = "PNG", **options: Any) -> str:
    encoded = base64.b64encode(encode(image, image_format, **options)).decode()
    return f"data:image/{image_format.lower()};base64,{encoded}"


async def test_vision_offline(server: PictureServer) -> None:
    server.answers["/invoice.png"] = answer(encode(invoice()))
    graph = get_agent("vision").build({"type": "vision"}, LocalVision(), _deps()).compile()
    output = await graph.ainvoke({"image_url": server.url("/invoice.png"), "query": "What is the total?"})
    assert set(output) == {
        "answer", "image", "text", "text_regions", "palette", "brightness", "contrast", "sharpness", "offline",
        "notice",
    }  # fmt: skip
    assert output["offline"] is True
    assert "Total EUR  79.50" in output["answer"]
    assert [line.split() for line in output["text"].splitlines()] == [" ".join(row).split() for row in INVOICE]
    assert (output["image"]["width"], output["image"]["height"]) == (1000, 420)
    assert output["palette"][0]["name"] == "white"
    assert len(server.requests) == 1  # the second node took it from memory
    assert json.loads(json.dumps(output, allow_nan=False)) == output


async def test_boxes_are_in_the_originals_pixels() -> None:
    """The model saw a picture of half the size, with its orientation applied."""
    stored = invoice(2).transpose(Image.Transpose.ROTATE_90)
    source = _data_url(stored, "JPEG", quality=92, exif=camera_exif(6))
    graph = get_agent("vision").build({}, LocalVision(), _deps(max_image_side=1000)).compile()
    output = await graph.ainvoke({"image_url": source})
    assert (output["image"]["width"], output["image"]["height"]) == (2000, 840)
    total = next(region for region in output["text_regions"] if region["text"] == "79.50")
    left, top, right, bottom = total["box"]
    assert 560 < left < 620 < right < 800
    assert 600 < top < 680 < bottom < 740
    assert output["image"]["exif"]["GPS"]["latitude"] == pytest.approx(-33.8569)


async def test_vision_with_a_hosted_model() -> None:
    model = hosted("A landscape.")
    graph = get_agent("vision").build({"system_prompt": "Be brief."}, model, _deps(max_image_side=320)).compile()
    output = await graph.ainvoke({"image_url": _data_url(photo(), "JPEG"), "query": "Where is this?"})
    assert output["answer"] == "A landscape."
    assert (output["offline"], output["notice"], output["text"], output["text_regions"]) == (False, None, None, [])
    assert 0 < output["brightness"] < 1
    system, human = model._asked[0]
    assert system.text == f"Be brief.\n\n{CONTENT_RULE}"
    assert human.text == "Where is this?"
    picture = next(block for block in human.content_blocks if block["type"] == "image")
    shown = Image.open(io.BytesIO(base64.b64decode(picture["base64"])))
    assert shown.size == (320, 240)


def _document(pages: list[Image.Image]) -> str:
    return _data_url(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_deflate")


async def test_a_hosted_model_sees_every_page_and_tile() -> None:
    model = hosted("Three pages.")
    graph = get_agent("vision").build({}, model, _deps(max_image_side=1000)).compile()
    pages = [photo(64, 48), photo(9000, 120), photo(32, 24)]
    output = await graph.ainvoke({"image_url": _document(pages), "query": "What is this?"})
    blocks = model._asked[0][1].content_blocks
    images = [block for block in blocks if block["type"] == "image"]
    shown = [Image.open(io.BytesIO(base64.b64decode(block["base64"]))) for block in images]
    assert shown[0].size == (64, 48)
    assert all(tile.height > 90 for tile in shown[1:-1])
    assert sum(tile.width for tile in shown[1:-1]) > 7000
    said = [str(block["text"]).strip() for block in blocks if block["type"] == "text"]
    assert said[:3] == [
        "What is this?", "[Picture: page 1 of 3]", "[Picture: page 2 of 3, tile 1 of 9, from left to right]",
    ]  # fmt: skip
    assert said[-1] == "[Picture: page 3 of 3]"
    assert (output["notice"], output["text_regions"]) == (None, [])


async def test_pages_that_no_model_saw_are_named() -> None:
    graph = get_agent("vision").build({}, hosted("A landscape."), _deps()).compile()
    output = await graph.ainvoke({"image_url": _document([photo(8, 8)] * 18)})
    assert output["notice"] == "Only the first 16 of 18 pages were looked at, not pages 17 to 18."
    assert output["offline"] is False


async def test_every_page_is_read_offline() -> None:
    graph = get_agent("vision").build({}, LocalVision(), _deps(offline=True)).compile()
    output = await graph.ainvoke({"image_url": _document([invoice().crop((0, 0, 700, 80)), invoice()])})
    texts = output["text"].split("\n\n")
    assert [text.splitlines()[0] for text in texts] == ["Page 1 of 2", "Page 2 of 2"]
    assert texts[0].split()[4:] == ["INVOICE", "No.", "2026-1147"]
    assert "Total EUR  79.50" in texts[1]
    assert [(page["page"], page["width"], page["height"]) for page in output["pages"]] == [(1, 700, 80), (2, 1000, 420)]
    assert output["text_regions"] == output["pages"][0]["text_regions"]
    assert len(output["pages"][1]["text_regions"]) == sum(len(cells) for cells in INVOICE)


async def test_checkpoints_hold_no_bytes(server: PictureServer) -> None:
    data = encode(photo(1500, 1000), "JPEG", quality=95)
    assert len(data) > 200_000
    server.answers["/p.jpg"] = answer(data)
    saver = InMemorySaver()
    graph = get_agent("vision").build({}, hosted("x"), _deps()).compile(checkpointer=saver)
    await graph.ainvoke({"image_url": server.url("/p.jpg")}, {"configurable": {"thread_id": "1"}})
    blobs = [blob for _, blob in saver.blobs.values()]
    assert sum(len(blob) for blob in blobs) < 20_000


async def test_a_resumed_run_reports_on_the_picture_it_showed(server: PictureServer) -> None:
    server.answers["/p.png"] = answer(encode(photo(64, 48)))
    config = {"configurable": {"thread_id": "1"}}
    saver = InMemorySaver()
    first = get_agent("vision").build({}, hosted("x"), _deps()).compile(saver, interrupt_before=["analyse"])
    await first.ainvoke({"image_url": server.url("/p.png")}, config)  # type: ignore[call-overload]  # a plain dict
    server.answers["/p.png"] = answer(encode(photo(32, 24)))
    second = get_agent("vision").build({}, hosted("x"), _deps()).compile(saver)  # another process: its own cache
    output = await second.ainvoke(None, config)  # type: ignore[call-overload]
    assert output["image"]["width"] == 32
    assert len(server.requests) == 2


async def test_tokens_stream_out_of_the_graph() -> None:
    graph = get_agent("text").build({}, LocalText(), _deps()).compile()
    streamed, nodes = "", set()
    output: dict[str, Any] = {}
    parts: AsyncIterator[Any] = graph.astream({"text": ARTICLE}, stream_mode=["messages", "tasks", "values"])
    async for mode, part in parts:
        if mode == "messages":
            chunk, metadata = part
            assert isinstance(chunk, AIMessageChunk)
            streamed += chunk.text
            nodes.add(metadata["langgraph_node"])
        elif mode == "values":
            output = part
    assert nodes == {"analyse"}
    assert streamed == output["answer"]


async def test_text_offline() -> None:
    graph = get_agent("text").build({}, LocalText(), _deps()).compile()
    output = await graph.ainvoke({"text": ARTICLE, "query": "What does the terminal cost?"})
    assert output["offline"] is True
    assert output["notice"] == NOTICE
    assert output["answer"].startswith(NOTICE)
    assert not output["summary"].startswith(NOTICE)
    assert output["language"] == "en"
    assert output["statistics"]["sentences"] == 9
    assert "84.5 million" in output["answer"]


async def test_text_with_a_hosted_model() -> None:
    model = hosted("It will cost 84.5 million.")
    graph = get_agent("text").build({}, model, _deps()).compile()
    output = await graph.ainvoke({"text": ARTICLE, "query": "What does the terminal cost?"})
    assert output["answer"] == output["summary"] == "It will cost 84.5 million."
    assert output["offline"] is False
    assert output["key_phrases"]
    assert model._asked[0][1].text.startswith("What does the terminal cost?\n<text>\n")


async def test_text_over_the_limit() -> None:
    deps = AgentDeps(SETTINGS.model_copy(update={"max_text_chars": 100}))
    graph = get_agent("text").build({}, LocalText(), deps).compile()
    with pytest.raises(InputError, match=r"^text: has 101 characters, more than the limit of 100; send a shorter"):
        await graph.ainvoke({"text": "x" * 101})


async def test_synthesis_offline() -> None:
    results = {
        "reader": {"answer": f"{NOTICE}\n{ARTICLE}", "notice": NOTICE, "offline": True},
        "counter": {"summary": "Nine sentences were counted. Two of them name the ferry."},
        "raw": {"total": 79.5},
    }
    graph = get_agent("synthesis").build({}, LocalText(), _deps()).compile()
    output = await graph.ainvoke({"results": results, "query": "What about the ferry?"})
    assert [line.partition(":")[0] for line in output["summary"].splitlines()] == ["reader", "counter", "raw"]
    assert NOTICE not in output["summary"]
    assert "79.5" in output["summary"]
    assert output["sources"] == ["reader", "counter", "raw"]
    assert output["offline"] is True


async def test_synthesis_with_a_hosted_model() -> None:
    model = hosted("All agree.")
    graph = get_agent("synthesis").build({}, model, _deps()).compile()
    output = await graph.ainvoke({"results": {"a": {"answer": "Yes."}, "b": "Yes too."}})
    assert (output["summary"], output["offline"], output["sources"]) == ("All agree.", False, ["a", "b"])
    assert '<text name="a">\nYes.\n</text>\n<text name="b">\nYes too.\n</text>' in model._asked[0][1].text


@pytest.mark.parametrize(
    ("agent", "given", "message"),
    [
        ("vision", {"query": "?"}, "image_url: is missing; the agent needs it"),
        ("vision", {"image_url": "  "}, "image_url: is blank; the agent needs it"),
        ("vision", {"image_url": 5}, "image_url: has to be text, not int"),
        ("vision", {"image_url": "data:image/png;base64,aGk=", "query": 5}, "query: has to be text, not int"),
        ("text", {"text": "", "query": "?"}, "text: is blank; the agent needs it"),
        ("synthesis", {"results": {}}, "results: has to hold the result of at least one agent"),
        ("synthesis", {"results": [1]}, "results: has to hold the result of at least one agent"),
    ],
)
async def test_bad_input_names_the_field(agent: str, given: dict[str, Any], message: str) -> None:
    graph = get_agent(agent).build({}, hosted("x"), _deps()).compile()
    with pytest.raises(InputError) as caught:
        await graph.ainvoke(given)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("agent", "given", "message"),
    [
        ("vision", {}, "image_url: is missing; the vision agent needs it"),
        ("vision", {"image_url": " "}, "image_url: is blank; the vision agent needs it"),
        ("synthesis", {"results": {}}, "results: is blank"),
        ("text", {"text": "x"}, None),
    ],
)
def test_input_can_be_checked_before_a_graph_runs(agent: str, given: dict[str, Any], message: str | None) -> None:
    if message is None:
        get_agent(agent).check_input(given)
        return
    with pytest.raises(InputError) as caught:
        get_agent(agent).check_input(given)
    assert str(caught.value).startswith(message)


async def test_a_bad_picture_names_the_field() -> None:
    graph = get_agent("vision").build({}, hosted("x"), _deps()).compile()
    with pytest.raises(ImageInputError, match=r"^image_url: this is not a picture"):
        await graph.ainvoke({"image_url": "data:image/png;base64,aGVsbG8="})


def test_config() -> None:
    config = AgentConfig.parse({"type": "text", "system_prompt": "Hi", "temperature": "0.5", "max_tokens": "20"})
    assert config == AgentConfig("Hi", 0.5, 20)
    assert config.model_params() == {"temperature": 0.5, "max_tokens": 20}
    assert AgentConfig.parse({}).model_params() == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"temprature": 1},
            "the key “temprature” is not known; allowed are type, system_prompt, temperature, max_tokens",
        ),
        ({"temperature": 3}, "temperature has to be a number from 0 to 2"),
        ({"temperature": "nan"}, "temperature has to be a number from 0 to 2"),
        ({"temperature": True}, "temperature has to be a number from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens has to be a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens has to be a whole number of at least 1"),
        ({"system_prompt": ""}, "system_prompt has to be text"),
    ],
)
def test_bad_config_names_the_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(AgentConfigError, match=message):
        get_agent("vision").build(config, hosted("x"), _deps())


def test_an_unknown_agents_error_lists_the_known_ones() -> None:
    with pytest.raises(UnknownAgentError, match=f"there is no agent “audio”; built in are {', '.join(AGENTS)}"):
        get_agent("audio")


def test_what_airflow_imports_when_it_parses_dags_is_light() -> None:
    modules = "agents.registry", "agents.config", "models.resolve", "models.prices", "pictures.load"
    heavy = "langchain", "langchain_core", "langgraph", "PIL", "numpy", "httpx", "onnxruntime", "cv2", "genai_prices"
    code = (
        f"import sys\nimport {', '.join(f'backend.{name}' for name in modules)}\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_offline_vision_model_loads_its_engine_at_the_first_picture() -> None:
    code = (
        "import sys\nfrom backend.models.offline.vision import LocalVision\nLocalVision().invoke('hello')\n"
        "print([m for m in ('onnxruntime', 'rapidocr', 'cv2', 'yake', 'nltk') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
