"""What tells a backend process that the log has grown: Postgres' notifications, and Redis if there is one."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from redis import RedisError
from redis.asyncio import Redis

from backend.core.events import CHANNEL, Event
from backend.db.runs.announcements import STREAM, redis_options

log = logging.getLogger(__name__)

RECONNECT_DELAY = 1.0
"""Seconds between two attempts to connect; meanwhile the log is read as often."""

_QUIET_SECONDS = 10.0
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Events up to `last` were appended to an execution's log. With `events` these are they, from `first` on."""

    execution_id: str
    first: int
    last: int
    events: str | None = None

    def decoded(self) -> list[Event]:
        """The events. Raises `ValueError` when they are not what was announced."""
        found = json.loads(self.events or "[]")
        if len(found) != self.last - self.first + 1:
            raise ValueError(f"{len(found)} events are not {self.first} to {self.last}")
        return [
            Event(self.execution_id, self.first + index, item["type"], item["payload"])
            for index, item in enumerate(found)
        ]


class Wakeups:
    """Keeps one connection and passes on what comes over it.

    `on_wakeup` gets each wake-up; `on_doubt` is called when something may have been missed: the log is to be read.
    """

    name: str
    lost: str

    def __init__(self, on_wakeup: Callable[[Wakeup], None], on_doubt: Callable[[], None]) -> None:
        self._on_wakeup = on_wakeup
        self._on_doubt = on_doubt
        self.connected = False
        self.started = False

    async def listen(self) -> None:
        """Listen until cancelled; a lost connection is made anew."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, RedisError, OSError) as error:
                if self.connected or not self.started:
                    log.warning("the event feed lost its connection to %s: %s", self.name, type(error).__name__)
            self.connected, self.started = False, True
            await asyncio.sleep(RECONNECT_DELAY)
            self._on_doubt()  # the log itself may still be readable

    async def _listen(self) -> None:
        """Connect, set `connected`, and pass on what comes until the connection is lost."""
        raise NotImplementedError

    def _ready(self) -> None:
        self.connected = self.started = True
        self._on_doubt()  # what was missed while not connected


class PostgresWakeups(Wakeups):
    """`LISTEN` on a connection of its own."""

    name = "Postgres"
    lost = "the database connection is lost; reading once a second"

    def __init__(self, conninfo: str, on_wakeup: Callable[[Wakeup], None], on_doubt: Callable[[], None]) -> None:
        super().__init__(on_wakeup, on_doubt)
        self._conninfo = conninfo

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, application_name="visual_ai_feed", connect_timeout=5
        ) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._ready()
            while True:
                # A quiet connection is checked now and then: a dead peer sends nothing.
                async for notification in connection.notifies(timeout=_QUIET_SECONDS):
                    execution_id, _, last = notification.payload.partition(" ")
                    if last.isdigit():
                        self._on_wakeup(Wakeup(execution_id, int(last), int(last)))
                async with asyncio.timeout(_QUIET_SECONDS):
                    await connection.execute("SELECT 1")


class RedisWakeups(Wakeups):
    """Reads the Redis stream that `backend.db.runs.announcements` writes."""

    name = "Redis"
    lost = "Redis is out of reach; Postgres wakes the feed"

    def __init__(self, url: str, on_wakeup: Callable[[Wakeup], None], on_doubt: Callable[[], None]) -> None:
        super().__init__(on_wakeup, on_doubt)
        # It waits for entries longer than others wait for an answer.
        self._options = redis_options() | {"socket_timeout": _QUIET_SECONDS + 5, "client_name": "visual_ai_feed"}
        self._url = url

    async def _listen(self) -> None:
        async with Redis.from_url(self._url, decode_responses=True, **self._options) as redis:
            newest = await redis.xrevrange(STREAM, count=1)
            position: Any = newest[0][0] if newest else "0-0"
            self._ready()
            while True:
                found: Any = await redis.xread({STREAM: position}, count=_AT_ONCE, block=int(_QUIET_SECONDS * 1000))
                for entry, fields in found[0][1] if found else ():
                    position = entry
                    if (wakeup := _wakeup(fields)) is not None:
                        self._on_wakeup(wakeup)


def _wakeup(fields: dict[str, str]) -> Wakeup | None:
    try:
        return Wakeup(fields["id"], int(fields["first"]), int(fields["last"]), fields.get("events"))
    except (KeyError, ValueError):
        return None  # nothing of ours
