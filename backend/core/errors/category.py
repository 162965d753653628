"""The kinds of errors there are, for whoever looks at them: policy, records, monitoring."""

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
"""Categories that the same request meets again: the task fails at once, whatever its `retries` say."""

TRANSIENT: frozenset[Category] = frozenset({"rate_limit", "timeout", "server"})
"""Categories that pass by themselves."""
