"""When a timetable is due next."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from backend.services.scheduling.timetables import PRESETS, Timetable, check_cron

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


def times(data: dict[str, Any], count: int = 3, *, zone: str = "UTC", ends: datetime | None = None) -> list[str]:
    """The next times after noon, of a timetable that starts an hour later."""
    timetable = Timetable(data, zone, NOON + timedelta(hours=1), ends)
    return [f"{moment:%d %H:%M}" for moment in islice(timetable.times(NOON), count)]


def test_each_kind_from_its_start_to_its_end() -> None:
    assert times({"kind": "delta", "seconds": 1800}) == ["28 13:00", "28 13:30", "28 14:00"]
    assert times({"kind": "crons", "crons": ["0 * * * *"]}) == ["28 13:00", "28 14:00", "28 15:00"]
    several = {"kind": "crons", "crons": ["0 */2 * * *", "0 */3 * * *"]}
    assert times(several, 4) == ["28 14:00", "28 15:00", "28 16:00", "28 18:00"]
    dates = [(NOON + timedelta(minutes=minutes)).isoformat() for minutes in (30, 60, 90)]
    assert times({"kind": "events", "dates": dates}) == ["28 13:00", "28 13:30"]
    assert times({"kind": "assets", "assets": [], "condition": "all"}) == []
    assert times({"kind": "delta", "seconds": 1800}, ends=NOON + timedelta(minutes=90)) == ["28 13:00", "28 13:30"]


def test_a_time_of_the_day_stays_when_the_clocks_change() -> None:
    daily = {"kind": "crons", "crons": ["0 6 * * *"]}
    timetable = Timetable(daily, "Europe/Berlin", NOON - timedelta(days=2))
    found = [f"{moment:%d %H:%M}" for moment in islice(timetable.times(NOON - timedelta(days=1)), 3)]
    assert found == ["28 05:00", "29 04:00", "30 04:00"]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_expressions(preset: str) -> None:
    assert check_cron(PRESETS[preset], "/cron") == check_cron(preset, "/cron") == PRESETS[preset]
