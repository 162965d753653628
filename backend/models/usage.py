"""Counts what model calls use: tokens and their cost."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from backend.models.prices import cost_usd


@dataclass(slots=True)
class Usage:
    """Tokens and their cost in US dollars. `cost` is None as soon as the price of one call is unknown."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = Decimal(0)
    calls: int = 0

    def add(self, input_tokens: int, output_tokens: int, cost: Decimal | None) -> None:
        """Count one model call."""
        self.calls += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    @classmethod
    def sum(cls, usages: Iterable["Usage"]) -> "Usage":
        """The sum of several usages. Its cost is unknown if that of any usage with model calls is."""
        total = cls()
        for usage in usages:
            total.input_tokens += usage.input_tokens
            total.output_tokens += usage.output_tokens
            total.calls += usage.calls
            if usage.calls:
                total.cost = None if total.cost is None or usage.cost is None else total.cost + usage.cost
        return total

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars as a JSON number; None if it is unknown or no model was called."""
        return float(self.cost) if self.cost is not None and self.calls else None


@dataclass(frozen=True, slots=True)
class CallUsage:
    """What one answer used. `known` says whether the provider reported it; `cost` (US dollars) is None if unknown."""

    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    known: bool
    cache_read: int = 0
    cache_write: int = 0

    @classmethod
    def of(cls, message: AIMessage, model: str | None) -> "CallUsage":
        """The usage that an answer of "provider:model" reports."""
        used = message.usage_metadata
        given, answered = (used["input_tokens"], used["output_tokens"]) if used else (0, 0)
        cached = used.get("input_token_details", {}) if used else {}
        read, written = cached.get("cache_read", 0) or 0, cached.get("cache_creation", 0) or 0
        cost = cost_usd(model or "", given, answered, cache_read_tokens=read, cache_write_tokens=written)
        if used is None and cost != 0:
            cost = None  # without a token count the cost is unknown
        return cls(given, answered, cost, used is not None, read, written)


def answers(response: LLMResult) -> Iterator[AIMessage]:
    """The messages in a chat model's response."""
    for generation in (item for batch in response.generations for item in batch):
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            yield generation.message


def model_named(metadata: Mapping[str, Any]) -> str | None:
    """The "provider:model" that LangChain's integrations name in a call's metadata."""
    name = metadata.get("ls_model_name")
    return f"{metadata.get('ls_provider', 'unknown')}:{name}" if name else None
