"""How a picture is shown to a model: whole, page by page, or cut into tiles.

A model looks at a picture of limited size. A document of several pages is several pictures, and a long strip, such as
a panorama or the screenshot of a whole conversation, would be shrunk until nothing in it is legible. It is cut into
tiles instead, across its shorter side and where the least is drawn, so that no word is cut and nothing is shown twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from backend.pictures.picture import STRIP, LoadedImage

if TYPE_CHECKING:
    from PIL import Image

MAX_PARTS = 16
"""Pages and tiles that are looked at: each costs about 1,000 tokens, or a second of OCR."""

MIN_BREADTH = 12
"""Pixels of a strip that can hold a line of text."""

SHRUNK = 1.33
"""A tile that is longer than what is shown by more than this is noticeably less legible."""

SLACK = 0.1
"""The share of a tile's length within which the cut may move to where less is drawn."""

Box = tuple[int, int, int, int]
"""`(left, top, right, bottom)` in pixels of the page."""


@dataclass(frozen=True, slots=True)
class PicturePart:
    """A piece of a picture as a model gets it.

    `page` counts from 1; `tile` is None for a whole page, else the number of the tile, from 1. `box` is the piece in
    pixels of its page, and `page_size` that page's `(width, height)`.
    """

    page: int
    tile: int | None
    box: Box
    page_size: tuple[int, int]
    data: bytes = field(repr=False)
    media_type: str = "image/png"


@dataclass(frozen=True, slots=True)
class PictureParts:
    """The pieces in reading order; `notice` says what they leave out or make illegible, None if nothing."""

    parts: list[PicturePart]
    notice: str | None = None


def cut_strip(image: "Image.Image", max_side: int, max_tiles: int = MAX_PARTS) -> list[Box]:
    """The boxes that a picture is looked at in, in order: one, unless it is a strip longer than `max_side` pixels.

    Tiles have the strip's own resolution as long as `max_tiles` of them suffice.
    """
    width, height = image.size
    length, breadth = max(width, height), min(width, height)
    if length <= max_side or length < STRIP * breadth or breadth < MIN_BREADTH:
        return [(0, 0, width, height)]
    count = min(max_tiles, -(-length // max(max_side, breadth)))
    edges = [0, *_quiet_cuts(image, count), length]
    if width >= height:
        return [(before, 0, after, height) for before, after in pairwise(edges)]
    return [(0, before, width, after) for before, after in pairwise(edges)]


def _quiet_cuts(image: "Image.Image", count: int) -> Iterator[int]:
    """Positions along the longer side, near those of `count` equal tiles, where the picture changes least across."""
    import numpy as np

    across = image.width >= image.height
    length = max(image.size)
    tile = length / count
    reach = int(tile * SLACK)
    for number in range(1, count):
        ideal = round(tile * number)
        low, high = max(1, ideal - reach), min(length - 1, ideal + reach)
        box = (low, 0, high, image.height) if across else (0, low, image.width, high)
        ink = np.asarray(image.crop(box).convert("L"), dtype=np.float32).std(axis=0 if across else 1)
        # The middle of the widest gap, not its edge: a window of a line's height has to be quiet.
        span = max(1, min(len(ink) // 4, min(image.size) // 8))
        smooth = np.convolve(np.pad(ink, span // 2, mode="edge"), np.ones(span) / span, mode="valid")[: len(ink)]
        quiet = np.flatnonzero(smooth <= smooth.min() + 0.5)
        yield low + int(quiet[np.argmin(np.abs(quiet - (ideal - low)))])


def parts_for_model(picture: LoadedImage, max_side: int, *, tiled: bool = True) -> PictureParts:
    """The pieces of a picture for a model that takes `max_side` pixels on the longer side; blocking.

    Without `tiled` a strip stays whole, at its own size, for a model that cuts it itself.
    """
    parts: list[PicturePart] = []
    shrunk = 0
    shown = min(picture.pages, MAX_PARTS)
    for page in range(1, shown + 1):
        room = MAX_PARTS - len(parts) - (shown - page)
        # Shrunk while it is decoded, unless a strip may have to be cut out of it.
        limit = max_side if not picture.is_strip(page, max_side) else None
        image = picture.upright(limit, page)
        size = picture.page_size(page)
        boxes = cut_strip(image, max_side, room) if tiled else [(0, 0, *image.size)]
        for number, box in enumerate(boxes, 1):
            whole = len(boxes) == 1
            piece = image if whole else image.crop(box)
            if tiled and not whole and max(piece.size) > SHRUNK * max_side:
                shrunk += 1
            data, media_type = picture.encoded(piece, max_side if tiled or limit is not None else None)
            parts.append(
                PicturePart(page, None if whole else number, (0, 0, *size) if whole else box, size, data, media_type)
            )
    return PictureParts(parts, _notice(picture, shown, parts, shrunk))


def _notice(picture: LoadedImage, shown: int, parts: list[PicturePart], shrunk: int) -> str | None:
    said = []
    if shown < picture.pages:
        rest = f"page {shown + 1}" if picture.pages == shown + 1 else f"pages {shown + 1} to {picture.pages}"
        said.append(f"Only the first {shown} of {picture.pages} pages were looked at, not {rest}.")
    if shrunk:
        tiles = sum(part.tile is not None for part in parts)
        said.append(
            f"The picture is a long strip. Even in {tiles} tiles it had to be shown at a smaller size: small text may "
            "not be legible."
        )
    return " ".join(said) or None
