"""Pictures that were made to take long: decoded apart, within limits, and nobody else waits for them."""

import asyncio
import io
import time

import pytest
from PIL import Image

from backend.core.settings import Settings
from backend.pictures import decode as decoding
from backend.pictures.decode import decode, decode_image, is_costly
from backend.pictures.errors import ImageFetchError, ImageInputError
from tests.kit.pictures import encode, painted_often, photo

SETTINGS = Settings(_env_file=None)


def animation(frames: int) -> bytes:
    pictures = [Image.new("RGB", (64, 48), (number * 7 % 256, 90, 20)) for number in range(frames)]
    content = io.BytesIO()
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:])
    return content.getvalue()


def document(pages: int) -> bytes:
    content = io.BytesIO()
    sheets = [photo(40 + page, 30) for page in range(pages)]
    sheets[0].save(content, "TIFF", save_all=True, append_images=sheets[1:])
    return content.getvalue()


async def test_a_picture_that_is_painted_too_often_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SECONDS", 2.0)
    bomb = painted_often(3000, 3000, 2000)
    assert len(bomb) < 200_000
    began = time.monotonic()
    with pytest.raises(ImageInputError, match="takes longer than 2 s to decode; save it again as an ordinary JPEG"):
        await decode(bomb, SETTINGS)
    assert time.monotonic() - began < 20


async def test_ordinary_pictures_do_not_wait_for_costly_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SECONDS", 3.0)
    bombs = [asyncio.create_task(decode(painted_often(3000, 3000, 2000), SETTINGS)) for _ in range(4)]
    await asyncio.sleep(0.5)
    for _ in range(3):
        assert (await decode(encode(photo(64, 48)), SETTINGS)).facts.width == 64
    assert not all(bomb.done() for bomb in bombs)
    ended = await asyncio.gather(*bombs, return_exceptions=True)
    assert all(isinstance(error, ImageInputError) for error in ended)


async def test_only_so_many_costly_pictures_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "SECONDS", 0.5)
    bomb = painted_often(2000, 2000, 1000)
    ended = await asyncio.gather(*(decode(bomb, SETTINGS) for _ in range(decoding.WAITING + 5)), return_exceptions=True)
    assert sum(isinstance(error, ImageFetchError) for error in ended) == 5
    monkeypatch.setattr(decoding, "SECONDS", 20.0)
    assert (await decode(animation(3), SETTINGS)).facts.frames == 3  # there is room again


@pytest.mark.parametrize(
    "data",
    [animation(30), document(3), painted_often(3000, 3000, 20), encode(photo(64, 48), "JPEG", progressive=True)],
    ids=["animation", "document", "many scans", "progressive"],
)
async def test_what_is_found_apart_is_the_same(data: bytes) -> None:
    assert await decode(data, SETTINGS) == decode_image(data, SETTINGS)


def test_ordinary_pictures_are_decoded_here() -> None:
    for image_format in ("PNG", "JPEG", "WEBP", "BMP"):
        assert not is_costly(encode(photo(640, 480), image_format), SETTINGS)
    assert not is_costly(encode(photo(4000, 3000), "JPEG", progressive=True), SETTINGS)
    assert not is_costly(b"no picture", SETTINGS)
    assert is_costly(animation(2), SETTINGS)


async def test_damage_found_apart_is_reported_as_such() -> None:
    with pytest.raises(ImageInputError, match="damaged or cut off"):
        await decode(document(3)[:-2000], SETTINGS)
    with pytest.raises(ImageInputError, match="more than the limit of 1000"):
        await decode(animation(3), Settings(_env_file=None, max_image_pixels=1000))
