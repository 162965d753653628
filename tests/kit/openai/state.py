"""The state of the fake OpenAI server: its settings, its behaviours and its log."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from tests.kit.openai.behaviour import Behaviour
from tests.kit.openai.log import RequestLog
from tests.kit.openai.request import ModelRequest

PLAIN = Behaviour()


class Settings(BaseModel):
    """How the server responds to requests without a scripted behaviour. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency: float = Field(default=0.0, ge=0)
    """Delay before the headers."""
    token_delay: float = Field(default=0.0, ge=0)
    """Delay before each event of a stream."""
    rate: float | None = Field(default=None, gt=0)
    """Requests per second; above it 429 with `Retry-After` and `retry-after-ms`. None: no limit."""
    burst: int | None = Field(default=None, ge=1)
    """The burst within the rate; None: the requests of one second."""
    api_key: str | None = None
    """The only key that is accepted; None: any key, but there must be one."""
    keep_alive: bool = True
    """False: each response closes its connection, so that no client pools one that outlives its event loop."""
    models: tuple[str, ...] = ("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-4o", "gpt-4o-mini")
    """The models that GET /v1/models lists. Requests for any model succeed."""


class TokenBucket:
    def __init__(self, rate: float, burst: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.capacity = burst or max(1, math.floor(rate))
        self.level = float(self.capacity)
        self.clock = clock
        self.filled = clock()

    def take(self) -> float:
        """Take a token. Returns 0.0, or the seconds until there is a token to take."""
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.filled) * self.rate)
        self.filled = now
        if self.level >= 1:
            self.level -= 1
            return 0.0
        return (1 - self.level) / self.rate


@dataclass
class Scripted:
    behaviour: Behaviour
    seen: int = 0
    used: int = 0

    def due(self) -> bool:
        given = self.behaviour
        if given.times is not None and self.used >= given.times:
            return False
        if given.nth is not None and self.seen != given.nth:
            return False
        return given.every is None or self.seen % given.every == 0


class ServerState:
    """Belongs to one event loop; other threads change it through the control API only."""

    def __init__(self, settings: Settings, behaviours: Sequence[Behaviour] = ()) -> None:
        self.initial = settings
        self.initial_behaviours = behaviours
        self.number = 0
        self.transports: set[asyncio.Transport] = set()
        self.held: set[asyncio.Future[None]] = set()
        self.start_anew()

    def start_anew(self) -> None:
        self.log = RequestLog()
        self.scripted = [Scripted(b) for b in self.initial_behaviours]
        self.configure(self.initial)

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        self.bucket = TokenBucket(settings.rate, settings.burst) if settings.rate else None

    def choose(self, request: ModelRequest) -> Behaviour:
        """The behaviour for this request, which is counted."""
        matching = [
            s
            for s in self.scripted
            if s.behaviour.matches(api=request.api, model=request.model, prompt=request.prompt, params=request.params)
        ]
        for scripted in matching:
            scripted.seen += 1
        chosen = next((s for s in matching if s.due()), None)
        if chosen is None:
            return PLAIN
        chosen.used += 1
        return chosen.behaviour
