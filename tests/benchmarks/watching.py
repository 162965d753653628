"""Clients that record when each event of a run arrives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.kit.sse_client import Message, open_stream


@dataclass(frozen=True)
class Arrival:
    """An event and the time of its arrival, in seconds since the epoch."""

    at: float
    type: str
    data: dict[str, Any]


async def watch(url: str, path: str, *, token: str | None = None, seconds: float = 180) -> list[Arrival]:
    """The events of a stream until the server ends it or `seconds` have passed."""
    found: list[tuple[float, Message]] = []
    stream = await open_stream(url, path, lambda message: found.append((time.time(), message)), token=token, cursor=0)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.shield(stream.closed)
    assert stream.status in (None, 200), stream.status
    if stream.transport is not None:
        stream.transport.abort()
    return [Arrival(at, message.type, json.loads(message.data)) for at, message in found]


async def watch_all(
    url: str, paths: Sequence[str], *, token: str | None = None, seconds: float = 180
) -> list[list[Arrival]]:
    """`watch` for many streams at once."""
    return list(await asyncio.gather(*(watch(url, path, token=token, seconds=seconds) for path in paths)))


def lateness(arrivals: Iterable[Arrival], kind: str = "task_update") -> list[float]:
    """Milliseconds from the time that Airflow records for a start or an end to its arrival at the client."""
    found = []
    for arrival in arrivals:
        if arrival.type == kind and (moment := _moment(arrival.data)) is not None:
            found.append((arrival.at - datetime.fromisoformat(moment).timestamp()) * 1000)
    return found


def _moment(data: dict[str, Any]) -> str | None:
    if data["state"] == "running":
        return data.get("started_at")
    return data.get("finished_at") if data["state"] in ("success", "failed") else None
