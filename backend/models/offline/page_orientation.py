"""Which way up a page is, and where its boxes are in the picture as it was received.

Lines of text are wider than high, so a page whose lines are high lies on its side. Which of the two sides, and whether
a page stands on its head, a classifier says line by line; where the lines don't agree that the page is upright, the
text itself decides: it is recognised both ways, and the right way gives more of it with more confidence.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from backend.models.offline.page_layout import is_wide

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SIDEWAYS = 1.5
"""A line this much longer than broad has a direction; shorter pieces, such as single figures, say nothing."""

GUESS_SIDE = 800
"""Pixels of the longer side that the guess is made at."""

CLEARLY = 1.15
"""For each upright stroke, an upright page has 0.7 to 0.9 level ones; a page turned by a quarter has 1.3."""

DOUBT = 0.35
"""The share of lines on their head from which on it is checked whether the page is."""

LEGIBLE = 1.2
"""Characters for each height of a line along it, weighted by confidence: less is no text that the recogniser knows."""

CHECKED_LINES = 3
"""Lines that are recognised both ways: the longest."""

Line: TypeAlias = "NDArray[np.uint8]"
"""A piece of text, cut out of its page: blue, green, red."""

Recognise = Callable[[Sequence[Any]], list[tuple[str, float]]]


def seems_to_lie_on_its_side(image: "Image.Image") -> bool:
    """A guess, before any text is found, that saves finding it twice: letters have more upright strokes than level."""
    import numpy as np

    grey = image.convert("L")
    grey.thumbnail((GUESS_SIDE, GUESS_SIDE))
    pixels = np.asarray(grey, dtype=np.int16)
    level, upright = (int(np.abs(np.diff(pixels, axis=axis)).sum()) for axis in (0, 1))
    return level > CLEARLY * upright


def lies_on_its_side(quads: Sequence[Any]) -> bool:
    """Whether most of the text runs up or down, by the length of the lines; `quads` are `(4, 2)` corners."""
    up, across = 0.0, 0.0
    for quad in quads:
        width, height = _sides(quad)
        if height >= SIDEWAYS * width:
            up += height
        elif width >= SIDEWAYS * height:
            across += width
    return up > across


def is_short_and_high(quad: Any) -> bool:
    """Whether a piece of text may be a single high character instead of a word that runs up or down."""
    width, height = _sides(quad)
    return SIDEWAYS * width <= height < 2 * SIDEWAYS * width


def stands_on_its_head(
    lines: Sequence[Line], labels: Sequence[tuple[str, float]], recognise: Recognise, *, sideways: bool
) -> bool | None:
    """Whether a page's lines, cut out of it, are upside down; None when the text doesn't say.

    `labels` are the classifier's, `("0" or "180", confidence)` for each line; `sideways` tells that the page has been
    turned by a quarter, so that either is as likely.
    """
    weights = [line.shape[1] / line.shape[0] * score for line, (_, score) in zip(lines, labels, strict=True)]
    flipped = sum(weight for weight, (label, _) in zip(weights, labels, strict=True) if label == "180")
    if flipped < DOUBT * sum(weights) and not sideways:
        return False
    longest = sorted(lines, key=lambda line: line.shape[1] / line.shape[0])[-CHECKED_LINES:]
    as_is = legibility(recognise(longest), longest)
    turned = legibility(recognise([upside_down(line) for line in longest]), longest)
    if max(as_is, turned) < LEGIBLE:
        return None
    return turned > as_is


def upside_down(line: Line) -> Line:
    """The pixels turned by 180 degrees."""
    import numpy as np

    return np.ascontiguousarray(np.rot90(line, 2))


def turned_box(box: Sequence[int], quarters: int, size: tuple[int, int]) -> list[int]:
    """A box of a picture of `size`, width and height, in that picture turned counterclockwise by quarters."""
    left, top, right, bottom = box
    width, height = size
    if quarters == 1:
        return [top, width - right, bottom, width - left]
    if quarters == 2:
        return [width - right, height - bottom, width - left, height - top]
    if quarters == 3:
        return [height - bottom, left, height - top, right]
    return [left, top, right, bottom]


def legibility(read: Sequence[tuple[str, float]], lines: Sequence[Line]) -> float:
    """Characters for each height of a line along it, weighted by their confidence; those of Chinese count twice."""
    length = float(sum(line.shape[1] / line.shape[0] for line in lines))
    characters = sum((len(text) + sum(map(is_wide, text))) * score**2 for text, score in read)
    return characters / max(length, 1.0)


def _sides(quad: Any) -> tuple[float, float]:
    import numpy as np

    return float(np.linalg.norm(quad[0] - quad[1])), float(np.linalg.norm(quad[0] - quad[3]))
