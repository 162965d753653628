"""What the rate limiter of the agents knows about models and providers, for health checks and metrics."""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.core.ratelimit.state import LimitState
from backend.ratelimit.stores import LimitStore, StoreUnavailableError

log = logging.getLogger(__name__)

CACHE_SECONDS = 2.0
READ_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A model whose provider the agents have found down. `model` doesn't include the scope of its credentials."""

    model: str
    since: datetime
    retry_in: float
    """Seconds until the next probe; 0 while one is in flight."""


class ModelLimits:
    """A cached copy of the rate limiter's shared state, empty while the store is unavailable."""

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._offset = 0.0
        self.states: dict[str, LimitState] = {}
        """The latest states, by model."""

    async def refresh(self) -> None:
        """Read the states again if they are older than `CACHE_SECONDS`. Never raises."""
        async with self._lock:
            if time.monotonic() - self._read_at < CACHE_SECONDS:
                return
            self._read_at = time.monotonic()
            try:
                async with asyncio.timeout(READ_TIMEOUT):
                    found = await self._store.read_all()
            except (StoreUnavailableError, TimeoutError) as error:
                log.warning("the rate limiter's state could not be read: %s", error or type(error).__name__)
                self.states = {}
                return
            self.states = {model: snapshot.state for model, snapshot in found.items() if snapshot.state is not None}
            self._offset = next((snapshot.now - time.time() for snapshot in found.values()), 0.0)

    async def outages(self) -> list[Outage]:
        """Models whose calls are refused because their provider is down, longest first. Never raises."""
        await self.refresh()
        now = time.time() + self._offset
        found = [
            Outage(
                model.rpartition("@")[0] or model,
                datetime.fromtimestamp(state.circuit.opened_at, UTC),
                0.0 if state.circuit.probing else max(0.0, state.circuit.open_until - now),
            )
            for model, state in self.states.items()
            if state.circuit.opened_at is not None
        ]
        return sorted(found, key=lambda outage: outage.since)
