"""When a schedule is due: what a timetable may say, and when it comes true next.

A timetable is data of one of a closed list of kinds. Airflow's own timetables are made of it when the schedule's DAG is
parsed; what is computed here is a forecast, and checks what Airflow would only stumble over later.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter

from backend.core.problems import FieldError, Invalid, pointer

MAX_MISSED = 1_000
"""Runs that catching up may make."""

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}

KINDS: Mapping[str, tuple[str, ...]] = {
    "crons": ("crons",),
    "delta": ("seconds",),
    "events": ("dates",),
    "assets": ("assets",),
    "asset_or_time": ("crons", "assets"),
}
"""The kinds, each with the keys that it needs. Those with assets may also have a `condition`: `all` or `any`."""

_FIELDS = 5


@dataclass(frozen=True, slots=True)
class Timetable:
    """A checked timetable as it is stored, with what limits it."""

    data: Mapping[str, Any]
    zone: str
    starts_from: datetime
    ends: datetime | None = None

    def times(self, after: datetime) -> Iterator[datetime]:
        """The times after `after` at which it is due, in order; none that only assets decide."""
        begin = max(after, _before(self.starts_from))
        for moment in _times(self.data, ZoneInfo(self.zone), begin, self.starts_from):
            if self.ends is not None and moment > self.ends:
                return
            yield moment

    def next(self, after: datetime) -> datetime | None:
        """The first time after `after`; None if there is none, or only assets decide."""
        return next(self.times(after), None)


def check_zone(name: str) -> None:
    """Raises `Invalid` if there is no such time zone."""
    if name not in _zones():
        raise _invalid("/timezone", f"there is no time zone {name!r}; name one such as 'Europe/Berlin' or 'UTC'")


def check_timetable(data: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The timetable as it is stored; its assets are to be looked up.

    `place` is the pointer to it in the request: `/timetable`, or that of its only part, such as `/cron` or `/assets`.
    Raises `Invalid`.
    """
    kind = data["kind"]
    required = KINDS[kind]
    for name in required:
        if name not in data:
            raise _invalid(f"{place}/{name}", f"is required for the kind {kind!r}")
    for name in data:
        if name not in (*required, "kind") and not (name == "condition" and "assets" in required):
            raise _invalid(f"{place}/{name}", f"has no effect for the kind {kind!r}; omit it")
    checked: dict[str, Any] = {"kind": kind}
    if "crons" in required:
        crons = data["crons"]
        checked["crons"] = [
            check_cron(cron, place + pointer("crons", index) if place == "/timetable" else place)
            for index, cron in enumerate(crons)
        ]
    if "assets" in required:
        checked |= {"assets": list(data["assets"]), "condition": data.get("condition") or "all"}
    if kind == "delta":
        checked["seconds"] = data["seconds"]
    if kind == "events":
        checked["dates"] = [moment.astimezone(UTC).isoformat() for moment in sorted(set(data["dates"]))]
    return checked


def check_cron(cron: str, place: str) -> str:
    """The cron expression with its presets replaced. Raises `Invalid` if it is none, or never comes true."""
    plain = PRESETS.get(cron.strip(), " ".join(cron.split()))
    example = "give five fields, such as '0 6 * * 1-5' for 6:00 on weekdays"
    if len(plain.split()) != _FIELDS:
        raise _invalid(place, f"{cron!r} is no cron expression: {example}, or one of {', '.join(PRESETS)}")
    try:
        croniter(plain, datetime(2024, 1, 1, tzinfo=UTC)).get_next(datetime)
    except (ValueError, KeyError) as error:
        if "failed to find next date" in str(error):
            raise _invalid(place, f"{cron!r} never comes true: there is no such date in any year") from None
        raise _invalid(place, f"{cron!r} is no cron expression ({str(error)[:200]}): {example}") from None
    return plain


def check_span(timetable: Timetable, *, catchup: bool, now: datetime) -> None:
    """Raises `Invalid` if the timetable would never be due, or have too much to catch up."""
    only_assets = timetable.data["kind"] == "assets"
    if timetable.ends is not None and timetable.ends <= max(
        timetable.starts_from, now if not catchup else datetime.min.replace(tzinfo=UTC)
    ):
        raise _invalid("/end_date", "has to be after the start, and in the future unless there is `catchup`")
    if catchup and only_assets:
        raise _invalid("/catchup", "assets leave nothing to catch up; omit it")
    if catchup and timetable.starts_from < now:
        missed = sum(
            1 for moment in islice(timetable.times(_before(timetable.starts_from)), MAX_MISSED + 1) if moment <= now
        )
        if missed > MAX_MISSED:
            raise _invalid(
                "/start_date", f"there are more than {MAX_MISSED} runs to catch up since then; name a later one"
            )
    if not only_assets and timetable.data["kind"] != "asset_or_time":
        first = timetable.next(_before(timetable.starts_from) if catchup else now)
        if first is None:
            place = "/timetable/dates" if timetable.data["kind"] == "events" else "/end_date"
            raise _invalid(place, "there is no time left at which it would be due")


def _before(moment: datetime) -> datetime:
    return moment - timedelta(microseconds=1)


def _times(data: Mapping[str, Any], zone: ZoneInfo, after: datetime, start: datetime) -> Iterator[datetime]:
    if crons := data.get("crons"):
        return _cron_times(crons, zone, after)
    if data["kind"] == "delta":
        return _delta_times(timedelta(seconds=data["seconds"]), after, start)
    if data["kind"] == "events":
        return (moment for one in data["dates"] if (moment := datetime.fromisoformat(one)) > after)
    return iter(())


def _cron_times(crons: list[str], zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    iterators = [croniter(cron, after.astimezone(zone)) for cron in crons]
    heads = [one.get_next(datetime).astimezone(UTC) for one in iterators]
    while True:
        first = min(heads)
        yield first
        for index, head in enumerate(heads):
            if head == first:
                heads[index] = iterators[index].get_next(datetime).astimezone(UTC)


def _delta_times(step: timedelta, after: datetime, start: datetime) -> Iterator[datetime]:
    moment = start if after < start else start + step * ((after - start) // step + 1)
    while True:
        yield moment
        moment += step


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _invalid(place: str, detail: str) -> Invalid:
    return Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
