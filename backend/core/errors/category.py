"""The categories of errors. The policy decides by category, and records and monitoring count by it."""

from dataclasses import dataclass
from typing import Literal, get_args

Category = Literal[
    "rate_limit",
    "timeout",
    "context_length",
    "server",
    "auth",
    "quota",
    "bad_request",
    "content_filter",
    "invalid_output",
    "budget",
    "tool",
    "input",
    "cancelled",
    "internal",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

FINAL: frozenset[Category] = frozenset(
    {
        "auth",
        "quota",
        "bad_request",
        "content_filter",
        "context_length",
        "invalid_output",
        "budget",
        "input",
        "cancelled",
    }
)
"""The same request would fail in the same way, so the task fails at once, whatever its `retries` say."""

TRANSIENT: frozenset[Category] = frozenset({"rate_limit", "timeout", "server"})
"""These conditions pass without anybody's intervention."""


@dataclass(frozen=True, slots=True)
class Classified:
    """What an error is, as `classify` found it.

    `exception_type` and `message` belong to the exception of the chain that says what happened, which need not be the
    outermost one; `chain` describes the others, outermost first. After a `final` error the task must not be retried.
    """

    category: Category
    exception_type: str
    message: str
    final: bool
    chain: tuple[str, ...]
