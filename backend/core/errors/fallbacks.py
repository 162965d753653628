"""Fallback models: which take over from a model that fails, and which of them can hold the prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.errors.input_error import InputError

ANY_MODEL = "*"
"""Matches whatever model an agent uses."""

MAX_CHAIN = 10


@dataclass(frozen=True, slots=True)
class FallbackModel:
    """A model that may take over. `context_window` is its size in tokens, for prompt and answer; None if unknown."""

    model: str
    context_window: int | None = None


DEFAULT_FALLBACKS: Mapping[str, tuple[str, ...]] = {
    "openai:gpt-4": ("openai:gpt-4.1-mini",),
    "openai:gpt-4-turbo": ("openai:gpt-4.1-mini",),
    "openai:gpt-4o": ("openai:gpt-4.1-mini", "openai:gpt-4o-mini"),
    "openai:gpt-4o-mini": ("openai:gpt-4.1-nano",),
    "openai:gpt-4.1": ("openai:gpt-4.1-mini", "openai:gpt-4.1-nano"),
    "openai:gpt-4.1-mini": ("openai:gpt-4.1-nano",),
    "openai:o3": ("openai:o4-mini", "openai:gpt-4.1-mini"),
    "openai:o4-mini": ("openai:gpt-4.1-mini",),
    "openai:gpt-5": ("openai:gpt-5-mini", "openai:gpt-5-nano", "openai:gpt-4.1-mini"),
    "openai:gpt-5-mini": ("openai:gpt-5-nano", "openai:gpt-4.1-mini"),
    "openai:gpt-5-nano": ("openai:gpt-4.1-nano",),
    "openai:gpt-5.1": ("openai:gpt-5-mini", "openai:gpt-4.1-mini"),
    "openai:gpt-5.2": ("openai:gpt-5-mini", "openai:gpt-4.1-mini"),
    "openai:gpt-5.4": ("openai:gpt-5.4-mini", "openai:gpt-5.4-nano", "openai:gpt-4.1-mini"),
    "openai:gpt-5.4-mini": ("openai:gpt-5.4-nano", "openai:gpt-4.1-mini"),
    "openai:gpt-5.4-nano": ("openai:gpt-4.1-nano",),
    "openai:gpt-5.5": ("openai:gpt-5.4-mini", "openai:gpt-4.1-mini"),
    "openai:gpt-5.6-sol": ("openai:gpt-5.6-terra", "openai:gpt-5.6-luna"),
    "openai:gpt-5.6-terra": ("openai:gpt-5.6-luna",),
    "openai:gpt-6-astra": ("openai:gpt-6-sol", "openai:gpt-6-luna"),
    "openai:gpt-6-sol": ("openai:gpt-6-luna",),
    "openai:gpt-6.1-sol": ("openai:gpt-6.1-terra", "openai:gpt-6-luna"),
    "openai:gpt-6.1-terra": ("openai:gpt-6-luna",),
}
"""Smaller, cheaper models of the same provider. Each chain ends with one whose context window is large."""


def full_name(model: str) -> str:
    """The model as "provider:name". A bare name is OpenAI's, and so is that of a fine-tuned model ("ft:…")."""
    prefix, colon, rest = model.strip().partition(":")
    if not colon or prefix.lower() == "ft":
        return f"openai:{model.strip()}"
    return f"{prefix.strip().lower().replace('-', '_')}:{rest.strip()}"


def parse_fallbacks(given: Any, field: str) -> dict[str, tuple[FallbackModel, ...]]:
    """Parse fallback chains: `{"provider:name": ["provider:name" or {"model", "context_window"}, …]}`.

    A bare list applies to whatever model an agent uses; an empty one switches fallbacks off. Raises `InputError` that
    names the entry.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = {ANY_MODEL: given}
    if not isinstance(given, Mapping):
        raise InputError("has to be a list of models, or a dict of such lists by model", field=field)
    chains: dict[str, tuple[FallbackModel, ...]] = {}
    for model, chain in given.items():
        if not isinstance(model, str) or not model.strip():
            raise InputError("has a key that is no model's name", field=field)
        place = field if model == ANY_MODEL else f"{field}.{model}"
        if isinstance(chain, str) or not isinstance(chain, Sequence):
            raise InputError("has to be a list of models", field=place)
        if len(chain) > MAX_CHAIN:
            raise InputError(f"has {len(chain)} models; {MAX_CHAIN} are the limit", field=place)
        name = model if model == ANY_MODEL else full_name(model)
        chains[name] = tuple(_parse_entry(entry, f"{place}[{index}]") for index, entry in enumerate(chain))
    return chains


def _parse_entry(entry: Any, field: str) -> FallbackModel:
    if isinstance(entry, str):
        entry = {"model": entry}
    if not isinstance(entry, Mapping) or set(entry) - {"model", "context_window"}:
        raise InputError("has to be a model's name or {'model': …, 'context_window': …}", field=field)
    model, window = entry.get("model"), entry.get("context_window")
    if not isinstance(model, str) or not full_name(model).partition(":")[2]:
        raise InputError("has to name a model, such as 'openai:gpt-4.1-mini'", field=field)
    if isinstance(window, str) and window.strip().isdecimal():  # templates render to text
        window = int(window)
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InputError("has to be a whole number of tokens from 1 up", field=f"{field}.context_window")
    return FallbackModel(full_name(model), window)


def pick_fallback(
    options: Sequence[FallbackModel], *, prompt_tokens: int, min_prompt_tokens: int, trim: bool
) -> tuple[FallbackModel, int | None] | None:
    """The model that takes over, and how many tokens its prompt must be trimmed to (None if it fits as it is).

    This is the first option that holds `prompt_tokens`. If none does and `trim` allows it, it is the option with the
    largest context window, provided that it holds the prompt trimmed to `min_prompt_tokens`. Returns None if there is
    no such model. An unknown context window is taken to hold anything.
    """
    for option in options:
        if option.context_window is None or option.context_window >= prompt_tokens:
            return option, None
    largest = max(options, key=lambda option: option.context_window or 0, default=None)
    if not trim or largest is None or largest.context_window is None or largest.context_window < min_prompt_tokens:
        return None
    return largest, largest.context_window
