"""When so many errors within a time are worth telling: at the first moment, and then once in each such time."""

from datetime import UTC, datetime, timedelta

import pytest

from backend.core.notifications.rate_threshold import passed_at

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@pytest.mark.parametrize(
    ("seconds", "since", "told", "expected"),
    [
        ([], 0, None, []),
        ([0, 1], 0, None, []),
        ([0, 1, 2], 0, None, [(2, 3)]),
        ([0, 5, 9.9], 0, None, [(9.9, 3)]),
        ([0, 5, 10], 0, None, []),  # the first is over when the third comes
        ([0, 5, 10, 11], 0, None, [(11, 3)]),
        ([0, 1, 2, 3, 4, 5], 0, None, [(2, 3)]),  # not for each further one
        ([0, 1, 2, 11, 11.5, 12, 12.5], 0, None, [(2, 3), (12, 3)]),
        ([*range(40)], 0, None, [(2, 3), (12, 10), (22, 10), (32, 10)]),  # a storm: once in ten seconds
        ([0, 1, 2, 3], 3, None, [(3, 4)]),  # what came before counts, and is not told by itself
        ([0, 1, 2], 0, -1, []),
        ([0, 1, 2, 9], 0, -1, [(9, 4)]),
        ([0, 1, 2], 0, -10, [(2, 3)]),
    ],
)
def test_when_it_is_told(
    seconds: list[float], since: float, told: float | None, expected: list[tuple[float, int]]
) -> None:
    found = passed_at(
        [at(second) for second in seconds],
        errors=3,
        within=timedelta(seconds=10),
        since=at(since),
        told=None if told is None else at(told),
    )
    assert [((moment - START).total_seconds(), count) for moment, count in found] == expected


def test_one_error_may_be_enough() -> None:
    assert passed_at([at(0), at(1)], errors=1, within=timedelta(seconds=10), since=at(0), told=None) == [(at(0), 1)]
