"""Read the text of a picture, offline, with RapidOCR (PP-OCR models, which its package carries)."""

import os
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

COLUMN_GAP = 1.5
"""A gap between two pieces of a row of more than this many line heights is a column, shown as two spaces."""


MAX_SIDE = 2000
"""Pixels of the longer side that text is looked for in: about 170 dpi of an A4 page. Memory and time grow with it."""

MAX_ASPECT = 3
MIN_SIDE = 32
"""A strip gets a margin: the engine enlarges a picture until its shorter side has 736 pixels, whatever becomes of the
longer one, and fails on a side of less than one."""


class TextRegion(TypedDict):
    """A piece of text, its box `[left, top, right, bottom]` in pixels, and the confidence from 0 to 1."""

    text: str
    box: list[int]
    confidence: float


_lock = threading.Lock()
_engine: Any = None
_abandoned: list[Any] = []


def _forget_engine() -> None:
    global _engine, _lock
    # Kept, not freed: freeing it would wait for threads that exist in the parent only.
    _abandoned.append(_engine)
    _engine, _lock = None, threading.Lock()


# The engine's threads don't survive a fork, and Airflow forks its tasks: a child loads its own.
os.register_at_fork(after_in_child=_forget_engine)


def read_text(image: "Image.Image") -> list[TextRegion]:
    """The text regions of an RGB picture in reading order: rows from top to bottom, each from left to right.

    Blocking: about a second for a page on two cores, plus as much once per process to load the engine. Calls
    wait for each other: the engine keeps state between its steps, and one call uses all cores.
    """
    global _engine
    pixels, scale = _prepared(image)
    with _lock:
        if _engine is None:
            from rapidocr import RapidOCR

            _engine = RapidOCR(params={"Global.log_level": "critical"})
        result = _engine(pixels)
    if result.boxes is None or result.txts is None or result.scores is None:
        return []
    regions: list[TextRegion] = []
    for corners, text, score in zip(result.boxes, result.txts, result.scores, strict=True):
        if not text.strip():
            continue
        left, top = (max(0, round(float(edge) / scale)) for edge in corners.min(axis=0))
        right, bottom = (round(float(edge) / scale) for edge in corners.max(axis=0))
        box = [left, top, min(image.width, right), min(image.height, bottom)]
        regions.append({"text": text.strip(), "box": box, "confidence": round(float(score), 4)})
    return [region for row in rows(regions) for region in row]


def _prepared(image: "Image.Image") -> tuple["NDArray[np.uint8]", float]:
    """The pixels as the engine takes them, and what one of the picture's pixels became."""
    import numpy as np
    from PIL import Image

    scale = min(1.0, MAX_SIDE / max(image.size))
    small = image.convert("RGB")
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = small.resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(small)
    least = max(MIN_SIDE, max(small.size) // MAX_ASPECT)
    below, beside = max(0, least - small.height), max(0, least - small.width)
    if below or beside:
        # On the right and below, so that no coordinate moves; in the picture's own colour, so that no edge appears.
        padded = np.empty((small.height + below, small.width + beside, 3), np.uint8)
        padded[:] = np.median(pixels.reshape(-1, 3), axis=0)
        padded[: small.height, : small.width] = pixels
        pixels = padded
    return np.ascontiguousarray(pixels[:, :, ::-1]), scale  # blue, green, red


def rows(regions: list[TextRegion]) -> list[list[TextRegion]]:
    """Group regions into rows: a region joins the row whose last-placed centre line runs through it."""
    grouped: list[list[TextRegion]] = []
    for region in sorted(regions, key=lambda region: (_centre(region), region["box"][0])):
        _, top, _, bottom = region["box"]
        if grouped and top <= _centre(grouped[-1][-1]) <= bottom:
            grouped[-1].append(region)
        else:
            grouped.append([region])
    return [sorted(row, key=lambda region: region["box"][0]) for row in grouped]


def joined_text(regions: list[TextRegion]) -> str:
    """The full text, a line for each row; two spaces stand for a gap as wide as a column's."""
    return "\n".join(_joined_row(row) for row in rows(regions))


def _joined_row(row: list[TextRegion]) -> str:
    text = row[0]["text"]
    for before, region in pairwise(row):
        height = region["box"][3] - region["box"][1]
        gap = region["box"][0] - before["box"][2]
        text += ("  " if gap > COLUMN_GAP * height else " ") + region["text"]
    return text


def _centre(region: TextRegion) -> float:
    return (region["box"][1] + region["box"][3]) / 2
