"""A provider with a limit of calls per second, on an event loop with virtual time, and agents that call it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate
from tests.kit.openai.state import TokenBucket

MODEL = "openai:gpt-4.1@0a1b2c"


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


@dataclass
class LimitedProvider:
    """Responds with 429 above its limit, with or without a time to wait; while `down`, connections fail."""

    rate: float
    burst: int | None = None
    latency: float = 0.5
    """Seconds that a response takes, give or take half."""
    refusal_latency: float = 0.02
    says_when: bool = True
    down: bool = False
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """The times of calls, and whether they were admitted."""

    def __post_init__(self) -> None:
        self._bucket = TokenBucket(self.rate, self.burst, clock=now)
        self._random = random.Random(1)

    @property
    def waste(self) -> float:
        """The share of all calls that was refused."""
        return len(self.refused) / max(1, len(self.refused) + len(self.answered))

    async def call(self) -> float | None:
        """None if the call succeeded, else the seconds until a retry may succeed, or -1. Raises `ConnectionError`."""
        await asyncio.sleep(self.refusal_latency / 2)
        wait = self._bucket.take() if not self.down else 0.0
        if wait or self.down:
            self.refused.append(now())
            await asyncio.sleep(self.refusal_latency / 2)
            if self.down:
                raise ConnectionError
            return wait if self.says_when else -1.0
        self.answered.append(now())
        await asyncio.sleep(self.latency * self._random.uniform(0.5, 1.5))
        return None


async def ask(gate: ModelGate, provider: LimitedProvider, *, max_wait: float = 60.0, tokens: int = 100) -> None:
    """Call until a call succeeds, as the model call wrapper does. Raises what the limiter raises."""
    attempt = 0
    while True:
        await gate.admit(MODEL, tokens=tokens, max_wait=max_wait)
        try:
            wait = await provider.call()
        except ConnectionError:
            await gate.report(MODEL, "down")
            raise
        if wait is None:
            await gate.report(MODEL, "ok", tokens=tokens)
            return
        attempt += 1
        await gate.report(MODEL, "rate_limited", retry_after=wait if wait >= 0 else None)
        await asyncio.sleep(wait if wait >= 0 else random.uniform(0, min(30.0, 0.5 * 2**attempt)))


async def ask_again(gate: ModelGate, provider: LimitedProvider) -> None:
    """The same, but retry when the limiter says so."""
    while True:
        try:
            return await ask(gate, provider)
        except (HeldBackError, CircuitOpenError) as error:
            await asyncio.sleep(error.retry_after)
        except ConnectionError:
            await asyncio.sleep(random.uniform(0, 1))
