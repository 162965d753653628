"""A picture that takes long to decode, on its way through a task: no part of it decodes the original in the process."""

import base64
import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from backend.pictures import decode as decoding
from backend.pictures.cache import process_images
from backend.pictures.structure import is_plain
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.hostile_pictures import PICTURES
from tests.kit.openai.server import OpenAIServer


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What Pillow is given to open in this process."""
    found: list[bytes] = []
    real: Callable[..., Any] = Image.open

    def watched(source: io.BytesIO, *options: Any, **more: Any) -> Any:
        found.append(source.getvalue())
        return real(source, *options, **more)

    monkeypatch.setattr(Image, "open", watched)
    process_images.cache_clear()
    return found


async def ask(make_runner: MakeRunner, data: bytes) -> dict[str, Any]:
    given = {"query": "What is it?", "image_url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}
    async with make_runner() as runner:
        return await run_single(runner, parse_agent({"type": "vision"}, given, model="gpt-4.1"))


@pytest.mark.parametrize("name", ["JPEG of 300 scans", "animated GIF", "TIFF of 40 pages", "MPO of 40 pictures"])
async def test_a_model_sees_what_was_decoded_apart(
    make_runner: MakeRunner, openai_server: OpenAIServer, opened: list[bytes], name: str
) -> None:
    data = PICTURES[name].make()
    opened.clear()
    openai_server.script(content="A grey surface.")
    result = await ask(make_runner, data)
    assert result["output"]["image"]["size_bytes"] == len(data)
    assert opened
    assert data not in opened
    assert all(map(is_plain, opened))
    assert openai_server.requests[-1].images


async def test_what_takes_too_long_fails_the_task_before_a_model_is_paid(
    make_runner: MakeRunner, openai_server: OpenAIServer, opened: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "SECONDS", 1.0)
    data = PICTURES["JPEG of 9,000 scans"].make()
    opened.clear()
    with raises_failure(Exception, match="takes longer than 1 s to decode"):
        await ask(make_runner, data)
    assert openai_server.requests == []
    assert opened == []
