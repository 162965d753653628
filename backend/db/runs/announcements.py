"""Tells the feeds of all backends what was appended to the log.

Without Redis, Postgres does: a notification that is part of the transaction. With `REDIS_URL` an entry of a Redis
stream does, which is written after the commit and holds the events themselves, so that no feed has to read them from
Postgres.
Neither is the truth: an entry may be lost, come late or out of order, and whoever reads them goes by `seq`.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.core.events import CHANNEL

log = logging.getLogger(__name__)

STREAM = "visual_ai:events"
"""The Redis stream. Its entries have `id` (the execution's), `first` and `last` (seq), and `events` (JSON) if they are
not too large."""

STREAM_LENGTH = 10_000
"""Entries that are kept, more or less: a feed that was away longer reads the log."""

CONTENT_LIMIT = 64 * 2**10
"""Characters of JSON that an entry may hold; larger events are read from Postgres."""

OPTION = "visual_ai_announcements"
"""The connection's execution option with the list that appended events are added to."""

REDIS_TIMEOUT = 1.0
_PAUSE = 5.0
"""Seconds for which Postgres is told instead after Redis failed."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Events of one execution, `first` to `last`, as JSON: `[{"type", "payload"}, …]`."""

    execution_id: str
    first: int
    last: int
    events: str

    def entry(self) -> dict[str, str]:
        """The fields of the stream's entry."""
        fields = {"id": self.execution_id, "first": str(self.first), "last": str(self.last)}
        if len(self.events) <= CONTENT_LIMIT:
            fields["events"] = self.events
        return fields


def collecting(connection: Connection) -> list[Announcement] | None:
    """Where what the transaction appends is collected; None when Postgres is to notify."""
    found: list[Announcement] | None = connection.get_execution_options().get(OPTION)
    return found


def notify(connection: Connection, announcements: Sequence[Announcement]) -> None:
    """Have Postgres notify the feeds after all."""
    for one in announcements:
        payload = f"{one.execution_id} {one.last}"
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})


def redis_options() -> dict[str, Any]:
    """How every client of ours connects: it gives up soon, and tries again by itself when it is wanted again."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": REDIS_TIMEOUT,
        "socket_connect_timeout": REDIS_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "visual_ai",
        "protocol": 2,  # in which the answers about streams have one form
    }


class Announcer:
    """Writes to the Redis stream. Blocks for up to `REDIS_TIMEOUT` when Redis does not answer, and is then not used for
    `_PAUSE` seconds. Threads may share it; an event loop calls `publish` in a thread."""

    def __init__(self, url: str) -> None:
        from redis import Redis

        self._redis: Redis = Redis.from_url(url, **redis_options())
        self._paused_until = 0.0

    def open(self) -> list[Announcement] | None:
        """A list that collects a transaction's announcements; None while Redis does not answer."""
        return [] if time.monotonic() >= self._paused_until else None

    def publish(self, announcements: Sequence[Announcement]) -> bool:
        """Announce; False when Redis did not accept it. Never raises."""
        from redis import RedisError

        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for one in announcements:
                    pipe.xadd(STREAM, one.entry(), maxlen=STREAM_LENGTH, approximate=True)  # type: ignore[arg-type]  # the stubs' dict is invariant
                pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("Redis is out of reach (%s); Postgres wakes the event feeds", type(error).__name__)
            self._paused_until = time.monotonic() + _PAUSE
            return False
        return True

    def close(self) -> None:
        """Close its connections."""
        self._redis.close()
