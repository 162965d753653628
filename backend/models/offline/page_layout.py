"""The order in which a page's pieces of text are read.

A text detector finds pieces of lines, in no order. They are grouped into rows first, since most pages are read from
top to bottom, each row from left to right, and a table has to stay in its rows. Columns of prose are the exception:
they are read one after the other. What tells them from a table's columns is that both sides of the gap between them are
prose: lines of several words, close beneath each other, that fill their column. A heading across the page ends the
columns above it and begins those below.

All boxes are `[left, top, right, bottom]` of a page that stands upright.
"""

import statistics
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NotRequired, TypedDict

COLUMN_GAP = 1.5
"""A gap between two pieces of a row of more than this many line heights is a column, shown as two spaces."""

MIN_LINES = 4
"""Lines that a column of prose has at least: fewer are a heading, an address or a table's cells."""

MIN_CHARS = 12
"""Characters of a typical line of prose. Chinese and Japanese, which need fewer, count twice."""

PROSE_SHARE = 0.6
"""The share of a column's lines that have several words, and of its width that its typical line fills."""

MAX_PITCH = 2.1
"""Line heights from one line of prose to the next; a table's rows are often further apart."""

GUTTER = 0.6
"""Line heights between two columns of prose at least."""


class TextRegion(TypedDict):
    """A piece of text, its box `[left, top, right, bottom]` in pixels, and the confidence from 0 to 1.

    `script` is set, to a name such as "Cyrillic", when the text needed another recogniser than the usual one. If there
    is none for that script, `text` is empty and `confidence` 0.
    """

    text: str
    box: list[int]
    confidence: float
    script: NotRequired[str]


def reading_lines(regions: Sequence[TextRegion]) -> list[list[TextRegion]]:
    """The lines of a page in reading order, each with its pieces in reading order."""
    ordered = sorted(regions, key=lambda region: (centre(region), region["box"][0]))
    return list(_blocks(ordered))


def _blocks(regions: list[TextRegion]) -> Iterator[list[TextRegion]]:
    split = _columns(regions)
    if split is None:
        yield from rows(regions)
        return
    above, sides, below = split
    yield from _blocks(above)
    for side in sides:
        yield from _blocks(side)
    yield from _blocks(below)


def rows(regions: Sequence[TextRegion]) -> list[list[TextRegion]]:
    """Group regions into rows: a region joins the row whose last-placed centre line runs through it."""
    grouped: list[list[TextRegion]] = []
    for region in sorted(regions, key=lambda region: (centre(region), region["box"][0])):
        _, top, _, bottom = region["box"]
        if grouped and top <= centre(grouped[-1][-1]) <= bottom:
            grouped[-1].append(region)
        else:
            grouped.append([region])
    return [_in_order(row) for row in grouped]


def _in_order(row: list[TextRegion]) -> list[TextRegion]:
    if right_to_left(row):
        return sorted(row, key=lambda region: -region["box"][2])
    return sorted(row, key=lambda region: region["box"][0])


def right_to_left(regions: Sequence[TextRegion]) -> bool:
    """Whether most letters of these regions are written from right to left."""
    directions = [unicodedata.bidirectional(char) for region in regions for char in region["text"]]
    return sum(direction in ("R", "AL") for direction in directions) > directions.count("L")


def line_text(row: Sequence[TextRegion]) -> str:
    """A row's text; two spaces stand for a gap as wide as a column's."""
    text = row[0]["text"]
    for before, region in pairwise(row):
        height = region["box"][3] - region["box"][1]
        left, right = sorted((before["box"], region["box"]))
        text += ("  " if right[0] - left[2] > COLUMN_GAP * height else " ") + region["text"]
    return text


def centre(region: TextRegion) -> float:
    """The height of a region's centre line."""
    return (region["box"][1] + region["box"][3]) / 2


def _columns(
    regions: list[TextRegion],
) -> tuple[list[TextRegion], list[list[TextRegion]], list[TextRegion]] | None:
    """What stands above the largest block of two columns of prose, the columns in reading order, and what is below."""
    if len(regions) < 2 * MIN_LINES:
        return None
    height = statistics.median(region["box"][3] - region["box"][1] for region in regions)
    best: tuple[list[TextRegion], list[TextRegion], float, float] | None = None
    for x in _gutters(regions, height):
        crossing = [region for region in regions if region["box"][0] < x < region["box"][2]]
        for top, bottom in _bands(crossing):
            band = [region for region in regions if top < centre(region) < bottom and region not in crossing]
            left = [region for region in band if region["box"][2] <= x]
            right = [region for region in band if region["box"][0] >= x]
            if best is not None and len(left) + len(right) <= len(best[0]) + len(best[1]):
                continue
            if _beside(left, right, height) and _may_be_columns(left) and _may_be_columns(right):
                best = left, right, top, bottom
    if best is None:
        return None
    left, right, top, bottom = best
    sides = [right, left] if right_to_left(left + right) else [left, right]
    above = [region for region in regions if centre(region) <= top]
    return above, sides, [region for region in regions if centre(region) >= bottom]


def _gutters(regions: list[TextRegion], height: float) -> list[float]:
    """Positions between horizontal neighbours that may run between columns."""
    found = set()
    for row in rows(regions):
        for before, after in pairwise(sorted(row, key=lambda region: region["box"][0])):
            if after["box"][0] - before["box"][2] >= GUTTER * height:
                found.add((after["box"][0] + before["box"][2]) / 2)
    # Those of neighbouring rows differ by a ragged edge; one of each bundle is tried.
    tried: list[float] = []
    for x in sorted(found):
        if not tried or x - tried[-1] > height:
            tried.append(x)
    return tried


def _bands(crossing: list[TextRegion]) -> Iterator[tuple[float, float]]:
    """The stretches of the page between what crosses a gutter."""
    edges = [float("-inf"), *sorted(centre(region) for region in crossing), float("inf")]
    yield from pairwise(edges)


def _beside(left: list[TextRegion], right: list[TextRegion], height: float) -> bool:
    """Whether both sides are there, next to each other, with a clear gap between them."""
    if min(len(left), len(right)) < MIN_LINES:
        return False
    if min(region["box"][0] for region in right) - max(region["box"][2] for region in left) < GUTTER * height:
        return False
    spans = [(min(r["box"][1] for r in side), max(r["box"][3] for r in side)) for side in (left, right)]
    shared = min(span[1] for span in spans) - max(span[0] for span in spans)
    return shared > 0.5 * min(bottom - top for top, bottom in spans)


def _may_be_columns(side: list[TextRegion]) -> bool:
    return _is_prose(side) or _columns(side) is not None


def _is_prose(side: list[TextRegion]) -> bool:
    lines = rows(side)
    if len(lines) < MIN_LINES:
        return False
    width = max(region["box"][2] for region in side) - min(region["box"][0] for region in side)
    height = statistics.median(region["box"][3] - region["box"][1] for region in side)
    filled = statistics.median(line[-1]["box"][2] - line[0]["box"][0] for line in map(_left_to_right, lines))
    pitch = statistics.median(centre(after[0]) - centre(before[0]) for before, after in pairwise(lines))
    texts = [line_text(line) for line in lines]
    wordy = sum(_words(text) >= 3 for text in texts)
    length = statistics.median(map(_length, texts))
    # Cells of a table lie side by side, so a side of one has rows of several pieces with gaps between them.
    gapped = sum("  " in text for text in texts)
    return (
        length >= MIN_CHARS
        and wordy >= PROSE_SHARE * len(lines)
        and filled >= PROSE_SHARE * width
        and pitch <= MAX_PITCH * height
        and gapped <= 0.2 * len(lines)
    )


def _left_to_right(row: list[TextRegion]) -> list[TextRegion]:
    return sorted(row, key=lambda region: region["box"][0])


def _words(text: str) -> int:
    """Words that have letters; four ideographs count as a word."""
    wide = sum(is_wide(char) for char in text)
    return sum(any(char.isalpha() and not is_wide(char) for char in word) for word in text.split()) + wide // 4


def _length(text: str) -> int:
    return sum(2 if is_wide(char) else 1 for char in text)


def is_wide(char: str) -> bool:
    """Whether a character is as wide as it is high, as those of Chinese and Japanese are."""
    return unicodedata.east_asian_width(char) in ("W", "F")
