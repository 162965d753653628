"""What code that calls models sees of the rate limiter: a gate that each call passes, and the errors it raises."""

from typing import Literal, Protocol

CallOutcome = Literal["ok", "rate_limited", "down", "other"]
"""How a model call ended: answered, refused with 429, server error or no connection, any other error."""


class HeldBackError(RuntimeError):
    """The call would have to wait longer than it may. A retry after `retry_after` seconds helps."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the model's rate limit is used up for the next {self.retry_after:.3g} s"


class CircuitOpenError(ConnectionError):
    """The provider is down and was not called. A retry after `retry_after` seconds may help."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the model's provider is down; it is called again in {self.retry_after:.3g} s"


class ModelGate(Protocol):
    """Admits model calls and records how they ended. `model` is "provider:name@scope"; the scope stands for key and
    address, as limits apply to them."""

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """Wait until the call may start. `tokens` is the estimated size of the prompt.

        Raises `HeldBackError` at once if that would take longer than `max_wait` seconds, and `CircuitOpenError` if the
        provider is known to be down.
        """
        ...

    async def report(
        self, model: str, outcome: CallOutcome, *, retry_after: float | None = None, tokens: int | None = None
    ) -> None:
        """Record how the call that was admitted last in this context ended.

        `retry_after` is what the provider asked for, in seconds; `tokens` is what the call used, None if unknown.
        """
        ...


class OpenGate:
    """A gate that admits every call at once and records nothing."""

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """Returns at once."""

    async def report(
        self, model: str, outcome: CallOutcome, *, retry_after: float | None = None, tokens: int | None = None
    ) -> None:
        """Records nothing."""
