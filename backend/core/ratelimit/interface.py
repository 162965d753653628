"""The gate before a model that all workers share: who asks too often, or asks a provider that is down, waits there."""

from typing import Literal, Protocol


class HeldBackError(RuntimeError):
    """A call's turn would come later than it can wait. Trying again after `retry_after` seconds helps."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the model's rate limit is used up for the next {self.retry_after:.3g} s"


class CircuitOpenError(ConnectionError):
    """The provider is known to be down, so it was not asked. Trying again after `retry_after` seconds may help."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"the model's provider is down; it is asked again in {self.retry_after:.3g} s"


class ModelGate(Protocol):
    """Admits calls to models and is told how they ended. `model` is "provider:name" and a scope of credentials."""

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """Wait for the call's turn. Raises `HeldBackError` if that would take longer than `max_wait` seconds, and
        `CircuitOpenError` when the provider is known to be down. `tokens` is the estimate of the prompt."""
        ...

    async def report(
        self,
        model: str,
        outcome: Literal["ok", "rate_limited", "down", "other"],
        *,
        retry_after: float | None = None,
        tokens: int | None = None,
    ) -> None:
        """Say how an admitted call ended. `retry_after` is what the provider asked for, in seconds; `tokens` is what
        the call used."""
        ...


class OpenGate:
    """A gate that admits every call at once and keeps nothing."""

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """At once."""

    async def report(
        self,
        model: str,
        outcome: Literal["ok", "rate_limited", "down", "other"],
        *,
        retry_after: float | None = None,
        tokens: int | None = None,
    ) -> None:
        """Nothing is kept."""
