"""The reading order of text boxes: rows, tables, columns of prose, and scripts that run from right to left."""

import pytest

from backend.models.offline.page_layout import TextRegion, line_text, reading_lines
from backend.models.offline.page_orientation import turned_box

HEIGHT = 30


def _region(text: str, left: int, top: int, width: int | None = None) -> TextRegion:
    return TextRegion(text=text, box=[left, top, left + (width or 13 * len(text)), top + HEIGHT], confidence=1.0)


def _text(*regions: TextRegion) -> list[str]:
    return [line_text(line) for line in reading_lines(regions)]


def _prose(left: int, top: int, name: str, lines: int = 6) -> list[TextRegion]:
    return [_region(f"{name} words of line {number} go on", left, top + 45 * number, 400) for number in range(lines)]


def test_columns_of_prose_are_read_one_after_the_other() -> None:
    heading, footer = _region("A heading over both columns of the page", 200, 0), _region("page 7", 500, 600)
    left, right = _prose(50, 100, "left"), _prose(520, 112, "right")  # not on the same baselines
    expected = [heading["text"], *(r["text"] for r in left), *(r["text"] for r in right), footer["text"]]
    assert _text(*right, footer, *left, heading) == expected


def test_three_columns() -> None:
    columns = [_prose(50 + 450 * number, 0, name) for number, name in enumerate(("one", "two", "three"))]
    assert _text(*(r for row in zip(*columns, strict=True) for r in row)) == [r["text"] for c in columns for r in c]


def test_columns_above_and_below_a_heading_are_apart() -> None:
    upper = [*_prose(50, 0, "a"), *_prose(520, 0, "b")]
    heading = _region("A heading in the middle that crosses the gap between the columns", 50, 320)
    lower = [*_prose(50, 400, "c"), *_prose(520, 400, "d")]
    names = [line.split()[0] for line in _text(*lower, heading, *upper)]
    assert names == [*"aaaaaa", *"bbbbbb", "A", *"cccccc", *"dddddd"]


def _table(cells: list[tuple[str, ...]], lefts: tuple[int, ...], pitch: int) -> list[TextRegion]:
    return [
        _region(text, left, pitch * row)
        for row, texts in enumerate(cells)
        for text, left in zip(texts, lefts, strict=True)
    ]


@pytest.mark.parametrize(
    ("cells", "lefts", "pitch"),
    [
        (
            [(f"Article {n} with a long name", f"{n}", f"{n}.50", f"{n * n}.00") for n in range(8)],
            (0, 500, 600, 750),
            45,
        ),
        (
            [(f"The question number {n} of many", f"The answer to it that was given {n}") for n in range(6)],
            (0, 520),
            90,
        ),
        ([(f"Field {n}", f"what was written there in {n}") for n in range(6)], (0, 300), 45),
        ([("Total", "79.50"), ("Tax", "12.50"), ("Paid", "92.00"), ("Due", "0.00"), ("Sum", "1.00")], (0, 700), 45),
    ],
    ids=["invoice", "sentences with room between the rows", "labels and values", "figures"],
)
def test_tables_stay_in_rows(cells: list[tuple[str, ...]], lefts: tuple[int, ...], pitch: int) -> None:
    assert _text(*_table(cells, lefts, pitch)) == ["  ".join(row) for row in cells]


def test_arabic_is_read_from_the_right() -> None:
    assert _text(_region("المخزن", 0, 0), _region("الفاتورة", 500, 2)) == ["الفاتورة  المخزن"]
    second, first = (
        [_region(f"{word} إلى المخزن في المدينة", left, 45 * n, 400) for n in range(5)]
        for word, left in (("ثانيا", 0), ("أولا", 500))
    )
    assert [line.split()[0] for line in _text(*second, *first)] == ["أولا"] * 5 + ["ثانيا"] * 5


@pytest.mark.parametrize(
    ("quarters", "expected"),
    [(0, [10, 20, 40, 30]), (1, [20, 60, 30, 90]), (2, [60, 170, 90, 180]), (3, [170, 10, 180, 40])],
)
def test_boxes_turn_with_the_page(quarters: int, expected: list[int]) -> None:
    box = turned_box([10, 20, 40, 30], quarters, (100, 200))
    assert box == expected
    size = (100, 200) if quarters % 2 == 0 else (200, 100)
    assert turned_box(box, -quarters % 4, size) == [10, 20, 40, 30]
