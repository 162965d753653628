"""Counts what model calls use: tokens and their cost.

Providers report the tokens of each answer, and people pay by them. What can't be true (a negative number, more tokens
than any model takes, more tokens from the cache than there are) is not counted: the usage of that call is unknown then,
and a notice says so.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from backend.models.prices import cost_usd

MAX_TOKENS: Final = 100_000_000
"""More tokens than this, of one call, are taken for a mistake of the server."""


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
    """What one answer used.

    `known` says whether the provider reported it, and what it reported can be true; if not, `notice` says what it was.
    `cost` (US dollars) is None if unknown.
    """

    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    known: bool
    cache_read: int = 0
    cache_write: int = 0
    notice: str | None = None

    @classmethod
    def of(cls, message: AIMessage, model: str | None) -> "CallUsage":
        """The usage that an answer of "provider:model" reports."""
        given, answered, read, written = _reported(message)
        used = message.usage_metadata
        fault = _fault(given, answered, read, written) if used else None
        if used is None or fault is not None:
            # Without a token count the cost is unknown, unless the model costs nothing.
            cost = cost_usd(model or "", 1, 1)
            notice = f"{model or 'the model'} reported {fault}, which wasn't counted" if fault is not None else None
            return cls(0, 0, None if cost != 0 else cost, known=False, notice=notice)
        cost = cost_usd(model or "", given, answered, cache_read_tokens=read, cache_write_tokens=written)
        return cls(given, answered, cost, True, read, written)


def tokens_of(message: AIMessage) -> tuple[int, int] | None:
    """The input and output tokens that an answer reports; None if it reports none, or impossible ones."""
    reported = _reported(message)
    return None if message.usage_metadata is None or _fault(*reported) is not None else reported[:2]


def _reported(message: AIMessage) -> tuple[int, int, int, int]:
    """The tokens of the input, of the output, and of the input those read from and written to the provider's cache."""
    used = message.usage_metadata
    if used is None:
        return 0, 0, 0, 0
    given, answered = used["input_tokens"], used["output_tokens"]
    # Some servers count the model's reasoning in the total alone, although it is paid for as output.
    reasoning = _detail(used.get("output_token_details"), "reasoning")
    if reasoning > 0 and used["total_tokens"] == given + answered + reasoning:
        answered += reasoning
    cached = used.get("input_token_details")
    return given, answered, _detail(cached, "cache_read"), _detail(cached, "cache_creation")


def _detail(details: Any, name: str) -> int:
    """A part of a count. OpenAI's service tiers have their own names for it, such as "flex_cache_read"."""
    found = [value for key, value in (details or {}).items() if key == name or key.endswith(f"_{name}")]
    return next((value for value in found if isinstance(value, int)), 0)


def _fault(given: int, answered: int, read: int, written: int) -> str | None:
    """What can't be true of these tokens."""
    for name, count in (("input", given), ("output", answered), ("cached input", read), ("cached input", written)):
        if count < 0:
            return f"an unreadable or negative number of {name} tokens"
        if count > MAX_TOKENS:
            return f"{min(count, 10**300):.3g} {name} tokens"
    return f"{read + written} cached tokens of {given} input tokens" if read + written > given else None


def answers(response: LLMResult) -> Iterator[AIMessage]:
    """The messages in a chat model's response."""
    for generation in (item for batch in response.generations for item in batch):
        if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
            yield generation.message


def model_named(metadata: Mapping[str, Any]) -> str | None:
    """The "provider:model" that LangChain's integrations name in a call's metadata."""
    name = metadata.get("ls_model_name")
    return f"{metadata.get('ls_provider', 'unknown')}:{name}" if name else None
