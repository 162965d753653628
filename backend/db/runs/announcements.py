"""Announces appended events to the feeds of all backends.

Without Redis, the announcement is a PostgreSQL notification, sent by the same transaction. With `REDIS_URL` it is an
entry of a Redis stream, written after the commit. The entry holds the events themselves, so that no feed has to read
them from PostgreSQL.

Neither is reliable: an announcement may be lost, late or out of order, so readers rely on `seq`.
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
"""The Redis stream. An entry has `id` (the execution's), `first` and `last` (seq), and `events` (JSON) unless these are
too large."""

STREAM_LENGTH = 10_000
"""Approximate number of entries kept. A feed that has missed more reads the log."""

CONTENT_LIMIT = 64 * 2**10
"""Largest events in an entry, in characters of JSON. Larger ones are read from PostgreSQL."""

OPTION = "visual_ai_announcements"
"""The connection's execution option that holds the list to which appended events are added."""

REDIS_TIMEOUT = 1.0
_PAUSE = 5.0
"""Seconds for which PostgreSQL notifies instead after Redis has failed."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Events of one execution, `first` to `last`, as JSON: `[{"type", "payload"}, …]`."""

    execution_id: str
    first: int
    last: int
    events: str

    def entry(self) -> dict[str, str]:
        fields = {"id": self.execution_id, "first": str(self.first), "last": str(self.last)}
        if len(self.events) <= CONTENT_LIMIT:
            fields["events"] = self.events
        return fields


def collecting(connection: Connection) -> list[Announcement] | None:
    """The list that collects the transaction's announcements; None if PostgreSQL is to notify."""
    found: list[Announcement] | None = connection.get_execution_options().get(OPTION)
    return found


def notify(connection: Connection, announcements: Sequence[Announcement]) -> None:
    """Have PostgreSQL notify the feeds after all."""
    for one in announcements:
        payload = f"{one.execution_id} {one.last}"
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})


def redis_options() -> dict[str, Any]:
    """Connection options of all our Redis clients: they give up soon, and reconnect at the next command."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {
        "socket_timeout": REDIS_TIMEOUT,
        "socket_connect_timeout": REDIS_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "visual_ai",
        "protocol": 2,  # in which replies about streams have a single form
    }


class Announcer:
    """Writes to the Redis stream. It blocks for up to `REDIS_TIMEOUT` when Redis doesn't respond, and then pauses for
    `_PAUSE` seconds. Thread-safe; an event loop calls `publish` in a thread."""

    def __init__(self, url: str) -> None:
        from redis import Redis

        self._redis: Redis = Redis.from_url(url, **redis_options())
        self._paused_until = 0.0

    def open(self) -> list[Announcement] | None:
        """A list that collects a transaction's announcements; None during a pause."""
        return [] if time.monotonic() >= self._paused_until else None

    def publish(self, announcements: Sequence[Announcement]) -> bool:
        """Write the announcements; returns False if Redis did not accept them. Never raises."""
        from redis import RedisError

        try:
            with self._redis.pipeline(transaction=False) as pipe:
                for one in announcements:
                    pipe.xadd(STREAM, one.entry(), maxlen=STREAM_LENGTH, approximate=True)  # type: ignore[arg-type]  # the stubs' dict is invariant
                pipe.execute()
        except (RedisError, OSError) as error:
            log.warning("Redis is unavailable (%s); PostgreSQL wakes the event feeds", type(error).__name__)
            self._paused_until = time.monotonic() + _PAUSE
            return False
        return True

    def close(self) -> None:
        self._redis.close()
