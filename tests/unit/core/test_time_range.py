"""Time ranges and bucket widths."""

from datetime import timedelta

import pytest

from backend.core.problems import Invalid
from backend.core.time_range import bucket_width, parse_time_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1m", timedelta(minutes=1)),
        ("15m", timedelta(minutes=15)),
        ("90m", timedelta(minutes=90)),
        ("1h", timedelta(hours=1)),
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
        ("366d", timedelta(days=366)),
        ("8784h", timedelta(days=366)),
        ("527040m", timedelta(days=366)),
    ],
)
def test_a_range_is_a_length_of_time(text: str, expected: timedelta) -> None:
    assert parse_time_range(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "24", "h", "0h", "00d", "-1h", "+1h", "1.5h", "1w", "1H", "24h ", " 24h", "24h\n", "1h30m", "024h",
        "367d", "8785h", "527041m", "999999d", "9" * 5000 + "d", "١h", "1d'; --",
    ],
)  # fmt: skip
def test_anything_else_is_invalid_and_says_where(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_time_range(text)
    assert [error.pointer for error in caught.value.errors] == ["?time_range"]
    assert len(caught.value.detail) < 200  # what was sent is not repeated


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("1m", timedelta(seconds=2)),
        ("15m", timedelta(seconds=30)),
        ("1h", timedelta(minutes=2)),
        ("6h", timedelta(minutes=10)),
        ("24h", timedelta(minutes=30)),
        ("7d", timedelta(hours=4)),
        ("30d", timedelta(days=1)),
        ("90d", timedelta(days=2)),
        ("366d", timedelta(days=7)),
    ],
)
def test_the_usual_ranges_have_round_buckets(text: str, width: timedelta) -> None:
    assert bucket_width(parse_time_range(text)) == width


def test_every_range_has_about_forty_buckets() -> None:
    spans = [timedelta(minutes=minutes) for minutes in (*range(1, 600), *range(600, 366 * 1440 + 1, 173))]
    counts = [span / bucket_width(span) for span in spans]
    assert min(counts) >= 24
    assert max(counts) <= 64
