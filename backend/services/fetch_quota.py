"""Limits what one user may have this process fetch from other hosts, so that nobody uses it to load them, or it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from backend.core.problems import TooManyRequests

AT_ONCE = 4
"""Fetches of all users at the same time."""
OWN_AT_ONCE = 2
"""Fetches of one user at the same time: others are never kept waiting by a single one."""
OWN_WAITING = 50
"""Fetches of one user that may wait. A page shows as many pictures."""
REQUEST_BYTES = 64 * 1024
"""What a fetch counts besides what arrives: one that brings nothing is still a request to somebody's server."""
WINDOW = 60.0
"""In seconds."""


@dataclass(slots=True)
class _User:
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(OWN_AT_ONCE))
    wanted: int = 0
    received: deque[tuple[float, int]] = field(default_factory=deque)
    """When bytes arrived, and how many, within the last `WINDOW`."""


class FetchQuota:
    """Counts the fetches and bytes of each user, in this process. `per_minute` is in bytes; 0 means no limit."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._users: dict[str, _User] = {}

    @asynccontextmanager
    async def fetching(self, username: str) -> AsyncIterator[Callable[[int], None]]:
        """Wait for a turn to fetch something, and yield what is to be called with the number of bytes that arrive.

        Raises `TooManyRequests` when the user has too many waiting, or has fetched too much within a minute.
        """
        self._forget_idle()
        user = self._users.setdefault(username, _User())
        if user.wanted >= OWN_AT_ONCE + OWN_WAITING:
            raise TooManyRequests("Too many pictures of other hosts are being fetched for you.", retry_after=5)
        user.wanted += 1
        try:
            async with user.turn, self._turn:
                self._check(user)
                user.received.append((self._clock(), REQUEST_BYTES))
                yield lambda size: user.received.append((self._clock(), size))
        finally:
            user.wanted -= 1

    def _check(self, user: _User) -> None:
        self._trim(user)
        if self._per_minute and sum(size for _, size in user.received) >= self._per_minute:
            wait = user.received[0][0] + WINDOW - self._clock()
            raise TooManyRequests(
                f"More than {self._per_minute} bytes of pictures of other hosts within a minute.",
                retry_after=max(1.0, wait),
            )

    def _trim(self, user: _User) -> None:
        while user.received and user.received[0][0] < self._clock() - WINDOW:
            user.received.popleft()

    def _forget_idle(self) -> None:
        for name, user in list(self._users.items()):
            self._trim(user)
            if not user.wanted and not user.received:
                del self._users[name]
