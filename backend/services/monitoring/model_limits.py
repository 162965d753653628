"""What the agents know of their models' limits and providers, for those who watch the system."""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.core.ratelimit.state import LimitState
from backend.ratelimit.stores import LimitStore, StoreUnavailableError

log = logging.getLogger(__name__)

LIFETIME = 2.0
"""Seconds for which a reading stands."""

READ_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A model whose provider the agents found down. `model` is without the scope of its credentials."""

    model: str
    since: datetime
    retry_in: float
    """Seconds until one call tries again; 0 while one does."""


class ModelLimits:
    """Reads the agents' shared state now and then. Without the store nothing is known."""

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._offset = 0.0
        self.states: dict[str, LimitState] = {}
        """As they were read last, by model."""

    async def refresh(self) -> None:
        """Read, if the last reading is too old. Never raises."""
        async with self._lock:
            if time.monotonic() - self._read_at < LIFETIME:
                return
            self._read_at = time.monotonic()
            try:
                async with asyncio.timeout(READ_TIMEOUT):
                    found = await self._store.read_all()
            except (StoreUnavailableError, TimeoutError) as error:
                log.warning("models' limits could not be read: %s", error or type(error).__name__)
                self.states = {}
                return
            self.states = {model: seen.state for model, seen in found.items() if seen.state is not None}
            self._offset = next((seen.now - time.time() for seen in found.values()), 0.0)

    async def outages(self) -> list[Outage]:
        """The models that nobody calls now because their provider is down, the longest down first. Never raises."""
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
