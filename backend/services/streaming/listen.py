"""Wake-up sources: how a backend process learns that an execution's log, or a conversation's frames, have grown.

PostgreSQL notifies through `LISTEN`/`NOTIFY`, as part of the transaction that appends. With `REDIS_URL`, writers
announce in a Redis stream instead, after their commit and together with the events, and notify through PostgreSQL only
while Redis is unreachable. The feed therefore listens to both.

A source reports what it receives and promises nothing: wake-ups may be lost, late, duplicated or out of order. Whenever
some may have been lost, it asks the feed to read the log.
"""

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
"""Seconds between two attempts to connect. Meanwhile the feed reads the log at the same interval."""

_QUIET_SECONDS = 10.0
_ENTRIES_AT_A_TIME = 500


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Events up to `last` were appended to the log of an execution, or frames to those of a conversation, with this
    id. `events`, if present, holds them from `first` on."""

    id: str
    first: int
    last: int
    events: str | None = None

    def decoded(self) -> list[Event]:
        """The events. Raises `ValueError`, `KeyError` or `TypeError` when they are malformed."""
        found = json.loads(self.events or "[]")
        if len(found) != self.last - self.first + 1:
            raise ValueError(f"{len(found)} events are not {self.first} to {self.last}")
        return [Event(self.id, self.first + index, item["type"], item["payload"]) for index, item in enumerate(found)]


class WakeupSource:
    """Keeps one connection open and passes on what arrives over it."""

    name: str
    lost: str
    """The reason to report while there is no connection."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Callable[[Wakeup], None], Callable[[], None]]] = {}
        self.connected = False
        self.started = False
        """At least one attempt to connect has ended."""

    def pass_on(self, channel: str, on_wakeup: Callable[[Wakeup], None], on_missed: Callable[[], None]) -> None:
        """Call `on_wakeup` with each wake-up on a channel, and `on_missed` when some may have been lost. Before
        `listen`."""
        self._listeners[channel] = on_wakeup, on_missed

    async def listen(self) -> None:
        """Listen until cancelled, and reconnect after every lost connection."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, RedisError, OSError) as error:
                if self.connected or not self.started:
                    log.warning("the event feed lost its connection to %s: %s", self.name, type(error).__name__)
            self.connected, self.started = False, True
            await asyncio.sleep(RECONNECT_DELAY)
            self._missed()  # the log itself may still be readable

    async def _listen(self) -> None:
        """Connect, call `_ready`, and pass on wake-ups until the connection is lost."""
        raise NotImplementedError

    def _ready(self) -> None:
        self.connected = self.started = True
        self._missed()  # what was appended before the connection was ready

    def _missed(self) -> None:
        for _, on_missed in self._listeners.values():
            on_missed()


class PostgresWakeups(WakeupSource):
    """Listens on a PostgreSQL connection of its own, which serves all channels of the process. A wake-up on a channel
    is `<id> <last seq>`."""

    name = "Postgres"
    lost = "the database connection is lost; reading once a second"

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self._conninfo = conninfo

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, application_name="visual_ai_feed", connect_timeout=5
        ) as connection:
            for channel in self._listeners:
                await connection.execute(f"LISTEN {channel}")
            self._ready()
            while True:
                # A quiet connection is checked from time to time: a dead peer sends nothing.
                async for notification in connection.notifies(timeout=_QUIET_SECONDS):
                    key, _, last = notification.payload.partition(" ")
                    if last.isdigit():
                        on_wakeup, _ = self._listeners[notification.channel]
                        on_wakeup(Wakeup(key, int(last), int(last)))
                async with asyncio.timeout(_QUIET_SECONDS):
                    await connection.execute("SELECT 1")


class RedisWakeups(WakeupSource):
    """Reads the Redis stream that `backend.db.runs.announcements` writes."""

    name = "Redis"
    lost = "Redis is out of reach; Postgres wakes the feed"

    def __init__(self, url: str) -> None:
        super().__init__()
        # A read blocks for longer than other clients wait for a reply.
        self._options = redis_options() | {"socket_timeout": _QUIET_SECONDS + 5, "client_name": "visual_ai_feed"}
        self._url = url

    async def _listen(self) -> None:
        async with Redis.from_url(self._url, decode_responses=True, **self._options) as redis:
            newest = await redis.xrevrange(STREAM, count=1)
            position: Any = newest[0][0] if newest else "0-0"
            self._ready()
            while True:
                block = int(_QUIET_SECONDS * 1000)
                found: Any = await redis.xread({STREAM: position}, count=_ENTRIES_AT_A_TIME, block=block)
                for entry, fields in found[0][1] if found else ():
                    position = entry
                    if (wakeup := _wakeup(fields)) is not None:
                        self._listeners[CHANNEL][0](wakeup)


def _wakeup(fields: dict[str, str]) -> Wakeup | None:
    try:
        return Wakeup(fields["id"], int(fields["first"]), int(fields["last"]), fields.get("events"))
    except (KeyError, ValueError):
        return None  # not written by us
