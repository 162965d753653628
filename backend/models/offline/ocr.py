"""Read the text of a picture, offline, with RapidOCR (PP-OCR models, which its package carries).

A page goes through five steps: lines of text are found; the page is turned upright (`page_orientation`); its lines are
recognised; those in another script are read with Tesseract (`scripts`); and all are put into reading order
(`page_layout`). What comes out is in the coordinates of the picture as it was given.
"""

import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backend.models.offline.page_layout import TextRegion, line_text, reading_lines
from backend.models.offline.page_orientation import (
    LEGIBLE,
    Line,
    is_short_and_high,
    legibility,
    lies_on_its_side,
    seems_to_lie_on_its_side,
    stands_on_its_head,
    turned_box,
    upside_down,
)
from backend.models.offline.scripts import Reading, ScriptReader, read_other_scripts
from backend.pictures.parts import Box, cut_strip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MAX_SIDE = 2000
"""Pixels of the longer side that text is looked for in: about 170 dpi of an A4 page. Memory and time grow with it; a
long strip is read in pieces of this size."""

MAX_ASPECT = 3
MIN_SIDE = 32
"""A strip gets a margin: the engine enlarges a picture until its shorter side has 736 pixels, whatever becomes of the
longer one, and fails on a side of less than one."""

MIN_CONFIDENCE = 0.5
"""What is read with less is taken for a pattern that only looks like text."""

LEGIBLE_TURNED = 0.8
"""What a single line has to be read with to be turned against its page."""

FLIPPED = 0.9
"""The classifier's confidence from which on a single line may stand on its head although its page doesn't."""


@dataclass(frozen=True, slots=True)
class PageText:
    """The text of a page: all of it, in lines, and its pieces in reading order.

    `turned` says by how many degrees, clockwise, the page was turned in its picture: 0, 90, 180 or 270. `unreadable`
    counts the pieces in each script that can't be read here; they are among the `regions`, without text.
    """

    text: str
    regions: list[TextRegion]
    turned: int = 0
    unreadable: dict[str, int] = field(default_factory=dict)


class _Engine:
    """The models of one process. Calls wait for each other: the engine keeps state between its steps, and one call uses
    all cores."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._rapid: Any = RapidOCR(params={"Global.log_level": "critical"})
        self.scripts = ScriptReader()

    def find(self, pixels: "NDArray[np.uint8]") -> list[Any]:
        """The corners of each piece of text, as arrays of shape (4, 2): clockwise, from the top left."""
        boxes = self._rapid(pixels, use_det=True, use_cls=False, use_rec=False).boxes
        return [] if boxes is None else list(boxes)

    def cut(self, pixels: "NDArray[np.uint8]", quads: Sequence[Any]) -> list[Line]:
        """The pieces themselves, straightened; what runs up or down is laid flat."""
        return list(self._rapid.crop_text_regions(pixels, quads))

    def classify(self, lines: Sequence[Line]) -> list[tuple[str, float]]:
        """For each line "0" or, when it stands on its head, "180", with a confidence."""
        if not lines:
            return []
        _, result = self._rapid.cls_and_rotate(list(lines))
        return [(str(label), float(score)) for label, score in result.cls_res]

    def recognise(self, lines: Sequence[Line]) -> list[tuple[str, float]]:
        """The text of each line, with a confidence."""
        if not lines:
            return []
        result = self._rapid.recognize_txt(list(lines))
        return [(str(text).strip(), float(score)) for text, score in zip(result.txts, result.scores, strict=True)]


_lock = threading.Lock()
_engine: _Engine | None = None
_abandoned: list[Any] = []


def _forget_engine() -> None:
    global _engine, _lock
    # Kept, not freed: freeing it would wait for threads that exist in the parent only.
    _abandoned.append(_engine)
    _engine, _lock = None, threading.Lock()


# The engine's threads don't survive a fork, and Airflow forks its tasks: a child loads its own.
os.register_at_fork(after_in_child=_forget_engine)


def read_page(image: "Image.Image") -> PageText:
    """The text of an RGB picture, whichever way up it is.

    Blocking: about a second for a page on two cores, plus as much once per process to load the engine. Calls wait for
    each other.
    """
    global _engine
    image = image.convert("RGB")
    with _lock:
        if _engine is None:
            _engine = _Engine()
        return _read(_engine, image)


def read_text(image: "Image.Image") -> list[TextRegion]:
    """The text regions of an RGB picture in reading order."""
    return read_page(image).regions


def joined_text(regions: Sequence[TextRegion]) -> str:
    """The full text of an upright page, a line for each row; two spaces stand for a gap as wide as a column's."""
    return "\n".join(line_text(line) for line in reading_lines(regions))


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of the picture that text is looked for in: its pixels and scale, and the pieces that were found."""

    box: Box
    scale: float
    pixels: "NDArray[np.uint8]"
    quads: list[Any]


def _read(engine: _Engine, image: "Image.Image") -> PageText:
    from PIL.Image import Transpose

    sideways = len(cut_strip(image, MAX_SIDE)) == 1 and seems_to_lie_on_its_side(image)
    page = image.transpose(Transpose.ROTATE_90) if sideways else image
    windows = _windows(engine, page)
    if lies_on_its_side([quad for window in windows for quad in window.quads]):
        # Found anew, since of lines that run up or down single characters are easily missed.
        sideways = not sideways
        page = image.transpose(Transpose.ROTATE_90) if sideways else image
        windows = _windows(engine, page)
    lines = [line for window in windows for line in engine.cut(window.pixels, window.quads)]
    laid_flat = [is_short_and_high(quad) for window in windows for quad in window.quads]
    on_its_head, readings = _upright(engine, lines, laid_flat, sideways=sideways)
    readings = read_other_scripts(lines, readings, engine.scripts)
    found = [
        (box, reading)
        for box, reading in zip(_boxes(windows), readings, strict=True)
        if reading.script is not None or (reading.text and reading.confidence >= MIN_CONFIDENCE)
    ]
    upright = [_region(turned_box(box, 2 if on_its_head else 0, page.size), reading) for box, reading in found]
    received = [turned_box(box, 3 if sideways else 0, page.size) for box, _ in found]
    return _page_text(upright, received, 90 * sideways + 180 * on_its_head)


def _windows(engine: _Engine, page: "Image.Image") -> list[_Window]:
    windows = []
    for box in cut_strip(page, MAX_SIDE):
        pixels, scale = _prepared(page.crop(box))
        windows.append(_Window(box, scale, pixels, engine.find(pixels)))
    return windows


def _upright(
    engine: _Engine, lines: list[Line], laid_flat: list[bool], *, sideways: bool
) -> tuple[bool, list[Reading]]:
    """Whether the page stands on its head, and what its lines say; `lines` are turned where they do."""
    if not lines:
        return False, []
    labels = engine.classify(lines)
    turned = stands_on_its_head(lines, labels, engine.recognise, sideways=sideways)
    read = None if turned else engine.recognise(lines)
    if read is not None and legibility(read, lines) < LEGIBLE:  # perhaps a script that the recogniser doesn't know
        found = engine.scripts.detect(lines)
        turned = found is not None and found[2] == 180
    if turned or read is None:
        lines[:] = [upside_down(line) for line in lines]
        labels = [("0" if label == "180" else "180", score) for label, score in labels]
        read = engine.recognise(lines)
    return bool(turned), _with_odd_lines(engine, lines, read, labels, laid_flat)


def _with_odd_lines(
    engine: _Engine,
    lines: list[Line],
    read: list[tuple[str, float]],
    labels: list[tuple[str, float]],
    laid_flat: list[bool],
) -> list[Reading]:
    """What the lines say; a line that is more legible another way up takes the place of the one that was cut out."""
    import numpy as np

    readings = [Reading(text, score) for text, score in read]
    if legibility(read, lines) < LEGIBLE:
        return readings
    # A stamp or a margin may stand on its head on an upright page; a figure such as 1 looks like a line that runs up.
    others = {n: upside_down(lines[n]) for n, (label, score) in enumerate(labels) if label == "180" and score > FLIPPED}
    others |= {n: np.ascontiguousarray(np.rot90(lines[n], -1)) for n, is_so in enumerate(laid_flat) if is_so}
    for (n, line), (text, score) in zip(others.items(), engine.recognise(list(others.values())), strict=True):
        if text and score > max(readings[n].confidence, LEGIBLE_TURNED):
            readings[n], lines[n] = Reading(text, score), line
    return readings


def _boxes(windows: list[_Window]) -> list[Box]:
    """The pieces' boxes in pixels of the page, in the order in which they were found."""
    boxes = []
    for window in windows:
        left, top, right, bottom = window.box
        for quad in window.quads:
            low = [max(0, round(float(edge) / window.scale)) for edge in quad.min(axis=0)]
            high = [round(float(edge) / window.scale) for edge in quad.max(axis=0)]
            boxes.append((left + low[0], top + low[1], min(right, left + high[0]), min(bottom, top + high[1])))
    return boxes


def _page_text(upright: list[TextRegion], received: list[list[int]], turned: int) -> PageText:
    """The page in reading order, for which its regions have to be upright; then they get the boxes as received."""
    boxes = {id(region): box for region, box in zip(upright, received, strict=True)}
    lines = reading_lines(upright)
    readable = [[region for region in line if region["text"]] for line in lines]
    text = "\n".join(line_text(line) for line in readable if line)
    regions = [region for line in lines for region in line]
    for region in regions:
        region["box"] = boxes[id(region)]
    return PageText(text, regions, turned, dict(Counter(region["script"] for region in regions if not region["text"])))


def _region(box: Sequence[int], reading: Reading) -> TextRegion:
    region = TextRegion(text=reading.text, box=list(box), confidence=round(reading.confidence, 4))
    if reading.script is not None:
        region["script"] = reading.script
    return region


def _prepared(image: "Image.Image") -> tuple["NDArray[np.uint8]", float]:
    """The pixels as the engine takes them, and what one of the picture's pixels became."""
    import numpy as np
    from PIL import Image

    scale = min(1.0, MAX_SIDE / max(image.size))
    small = image
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
