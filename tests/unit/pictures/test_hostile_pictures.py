"""What a picture can do to the process that is given it: nothing but cheap work, whatever it is made of."""

import io
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from backend.core.settings import Settings
from backend.pictures import decode as decoding
from backend.pictures.decode import decode, is_costly
from backend.pictures.errors import ImageInputError
from backend.pictures.parts import parts_for_model
from backend.pictures.structure import is_plain
from tests.kit.hostile_pictures import PICTURES

SETTINGS = Settings(_env_file=None)

CHEAP = 1.5
"""Seconds of processor time that a picture may take in this process, from its bytes to what a model gets."""


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is opened in this process, each checked before Pillow sees it."""
    found: list[bytes] = []
    real: Callable[..., Any] = Image.open

    def watched(source: io.BytesIO, *options: Any, **more: Any) -> Any:
        found.append(source.getvalue())
        return real(source, *options, **more)

    monkeypatch.setattr(Image, "open", watched)
    monkeypatch.setattr(decoding, "SECONDS", 2.5)
    return found


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what is damaged
@pytest.mark.parametrize("name", PICTURES)
async def test_a_hostile_picture(name: str, opened: list[bytes]) -> None:
    hostile = PICTURES[name]
    data = hostile.make()
    opened.clear()
    assert len(data) < SETTINGS.max_image_bytes
    began = time.process_time()
    costly = is_costly(data, SETTINGS)
    assert time.process_time() - began < 0.3
    picture, refusal = None, None
    try:
        picture = await decode(data, SETTINGS)
    except ImageInputError as error:
        refusal = error.message
    if picture is None:
        assert hostile.refused is not None, refusal
        assert re.search(hostile.refused, refusal or "")
    else:
        assert hostile.refused is None or hostile.may_pass
        shown = parts_for_model(picture, 1024)
        assert shown.parts
        assert all(max(Image.open(io.BytesIO(part.data)).size) <= 1400 for part in shown.parts)
    assert time.process_time() - began < CHEAP + (0.5 if costly else 0)
    assert all(map(is_plain, opened))
    assert not (costly and data in opened)


def test_the_table_is_large() -> None:
    assert len(PICTURES) > 50
