"""The keys that configure a built-in agent. Light to import, because every DAG file with an operator imports it."""

from collections.abc import Collection
from difflib import get_close_matches

from backend.models.options import OPTIONS

MAX_TOKENS_NAMES = ("max_tokens", "max_completion_tokens", "num_predict")

CONFIG_KEYS = (
    "system_prompt",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "output_schema",
    "on_incomplete",
    "streaming",
    "output_method",
    "tools",
    *OPTIONS,
)
"""Everything that configures a built-in agent: the one list of it, by which every place that takes an agent goes."""


def unknown_key(key: str, known: Collection[str]) -> str:
    """Say that a key is not known, which known one is nearest, and which there are."""
    nearest = get_close_matches(key.lower(), known, n=1)
    hint = f"; did you mean “{nearest[0]}”?" if nearest else ""
    return f"the key “{key}” is not known; allowed are {', '.join(known)}{hint}"
