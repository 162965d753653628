"""What a model gets to see of long strips, documents of several pages and transparent pictures."""

import base64
import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from backend.core.settings import Settings
from backend.models.prompts.picture import caption_of, show_picture, without_captions
from backend.pictures.decode import decode_image
from backend.pictures.errors import ImageInputError
from backend.pictures.parts import MAX_PARTS, cut_strip, parts_for_model
from backend.pictures.picture import LoadedImage
from tests.kit.pictures import encode, photo

SETTINGS = Settings(_env_file=None)


def _loaded(image: Image.Image, image_format: str = "PNG", **options: Any) -> LoadedImage:
    return decode_image(encode(image, image_format, **options), SETTINGS)


def _pages(*sizes: tuple[int, int]) -> bytes:
    images = [Image.new("RGB", size, (number, 0, 0)) for number, size in enumerate(sizes)]
    return encode(images[0], "TIFF", save_all=True, append_images=images[1:])


def test_a_panorama_goes_in_tiles_at_its_own_size() -> None:
    picture = _loaded(Image.effect_noise((30_000, 200), 60))
    shown = parts_for_model(picture, 2048)
    assert shown.notice is None
    assert len(shown.parts) == 15
    assert [part.tile for part in shown.parts] == list(range(1, 16))
    assert shown.parts[0].box[0] == 0
    assert shown.parts[-1].box[2] == 30_000
    assert all(before.box[2] == after.box[0] for before, after in pairwise(shown.parts))
    for part in shown.parts:
        width, height = Image.open(io.BytesIO(part.data)).size
        assert height > 170
        assert width <= 2048


def test_a_tall_strip_is_cut_from_top_to_bottom() -> None:
    boxes = cut_strip(Image.new("L", (400, 9000)), 2000)
    assert len(boxes) == 5
    assert {(left, right) for left, _, right, _ in boxes} == {(0, 400)}
    assert (boxes[0][1], boxes[-1][3]) == (0, 9000)


@pytest.mark.parametrize("size", [(2000, 10), (6000, 4000), (300, 1200), (1, 1)])
def test_other_pictures_are_shown_whole(size: tuple[int, int]) -> None:
    assert cut_strip(Image.new("L", size), 2000) == [(0, 0, *size)]
    (part,) = parts_for_model(_loaded(Image.new("L", size)), 2000).parts
    assert (part.tile, part.box) == (None, (0, 0, *size))


def test_tiles_are_cut_between_words() -> None:
    font = ImageFont.load_default(40)
    image = Image.new("L", (9000, 80), "white")
    ImageDraw.Draw(image).text((20, 15), "lighthouse keepers " * 24, font=font, fill="black")
    ink = np.asarray(image) < 128
    cuts = [box[0] for box in cut_strip(image, 2000)][1:]
    assert len(cuts) == 4
    for cut in cuts:
        assert not ink[:, cut - 2 : cut + 2].any()


def test_what_is_too_long_even_for_tiles_is_said() -> None:
    shown = parts_for_model(_loaded(Image.new("L", (120_000, 150))), 2048)
    assert len(shown.parts) == MAX_PARTS
    assert shown.notice is not None
    assert "Even in 16 tiles it had to be shown at a smaller size" in shown.notice


def test_every_page_of_a_tiff_is_shown() -> None:
    picture = decode_image(_pages((40, 30), (30, 60), (1600, 800)), SETTINGS)
    shown = parts_for_model(picture, 1000)
    assert shown.notice is None
    assert [(part.page, part.page_size) for part in shown.parts] == [(1, (40, 30)), (2, (30, 60)), (3, (1600, 800))]
    images = [Image.open(io.BytesIO(part.data)) for part in shown.parts]
    assert [image.size for image in images] == [(40, 30), (30, 60), (1000, 500)]
    assert [image.getpixel((1, 1)) for image in images] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


def test_pages_beyond_the_bound_are_named() -> None:
    shown = parts_for_model(decode_image(_pages(*[(20, 20)] * 20), SETTINGS), 1000)
    assert len(shown.parts) == MAX_PARTS
    assert shown.notice == "Only the first 16 of 20 pages were looked at, not pages 17 to 20."


def test_a_large_page_behind_a_small_one_is_refused() -> None:
    small = Settings(_env_file=None, max_image_pixels=10_000)
    with pytest.raises(ImageInputError, match="limit of 10000"):
        decode_image(_pages((40, 30), (400, 300)), small)


async def test_each_page_has_its_caption() -> None:
    shown = await show_picture(decode_image(_pages((40, 30), (30, 60)), SETTINGS), 1000)
    blocks = [block for block in shown.blocks if isinstance(block, dict)]
    assert [block["type"] for block in blocks] == ["text", "image", "text", "image"]
    assert [caption_of(block) for block in blocks[::2]] == ["page 1 of 2", "page 2 of 2"]
    said = "What is this?" + "".join(str(block["text"]) for block in blocks[::2])
    assert without_captions(said) == "What is this?"
    single = await show_picture(_loaded(photo(64, 48), "JPEG"), 1000)
    (block,) = single.blocks
    assert isinstance(block, dict)
    assert block["mime_type"] == "image/jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(block["base64"]))).size == (64, 48)


@pytest.mark.parametrize(
    ("drawn", "ground"),
    [
        (["white"], (0, 0, 0)),
        (["#ffffe0"], (0, 0, 0)),
        (["black"], (255, 255, 255)),
        (["#808080"], (255, 255, 255)),
        (["white", "black"], (128, 128, 128)),
    ],
)
def test_what_is_drawn_on_transparency_stands_out(drawn: list[str], ground: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (300, 100), (0, 0, 0, 0))
    for number, colour in enumerate(drawn):
        ImageDraw.Draw(image).text((10, 10 + 40 * number), "Lighthouse", font=ImageFont.load_default(32), fill=colour)
    for image_format in ("PNG", "WEBP"):
        shown = _loaded(image, image_format, lossless=True).upright()
        assert shown.getpixel((299, 99)) == ground


def test_a_photograph_with_transparent_corners_stays_on_white() -> None:
    image = photo(300, 200).convert("RGBA")
    image.putalpha(Image.radial_gradient("L").resize((300, 200)).point(lambda value: 255 if value < 170 else 0))
    assert _loaded(image).upright().getpixel((0, 0)) == (255, 255, 255)
