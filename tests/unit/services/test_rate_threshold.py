"""A rate limit threshold notifies when it is first reached, and then once per period while errors keep coming."""

from datetime import UTC, datetime, timedelta

import pytest

from backend.services.notifications.recipients import threshold_reached

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@pytest.mark.parametrize(
    ("seconds", "since", "notified", "expected"),
    [
        ([], 0, None, []),
        ([0, 1], 0, None, []),
        ([0, 1, 2], 0, None, [(2, 3)]),
        ([0, 5, 9.9], 0, None, [(9.9, 3)]),
        ([0, 5, 10], 0, None, []),  # the first has left the period when the third comes
        ([0, 5, 10, 11], 0, None, [(11, 3)]),
        ([0, 1, 2, 3, 4, 5], 0, None, [(2, 3)]),  # not for each further one
        ([0, 1, 2, 11, 11.5, 12, 12.5], 0, None, [(2, 3), (12, 3)]),
        ([*range(40)], 0, None, [(2, 3), (12, 10), (22, 10), (32, 10)]),  # a storm: once in ten seconds
        ([0, 1, 2, 3], 3, None, [(3, 4)]),  # earlier errors count, but are no reason by themselves
        ([0, 1, 2], 0, -1, []),
        ([0, 1, 2, 9], 0, -1, [(9, 4)]),
        ([0, 1, 2], 0, -10, [(2, 3)]),
    ],
)
def test_when_a_threshold_is_reached(
    seconds: list[float], since: float, notified: float | None, expected: list[tuple[float, int]]
) -> None:
    found = threshold_reached(
        [at(second) for second in seconds],
        errors=3,
        within=timedelta(seconds=10),
        since=at(since),
        notified=None if notified is None else at(notified),
    )
    assert [((moment - START).total_seconds(), count) for moment, count in found] == expected


def test_one_error_may_be_enough() -> None:
    assert threshold_reached([at(0), at(1)], errors=1, within=timedelta(seconds=10), since=at(0), notified=None) == [
        (at(0), 1)
    ]
