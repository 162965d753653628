"""Which models take over from which, and which of them can hold a prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.errors.input_error import InputError

ANY_MODEL = "*"
"""Stands for whatever model an agent uses."""

MAX_CHAIN = 10


@dataclass(frozen=True, slots=True)
class Fallback:
    """A model that takes over. `context_window` is how many tokens it holds, prompt and answer; None: not known."""

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
"""Smaller, cheaper models of the same provider; the last of a chain holds more than small ones usually do."""


def full_name(model: str) -> str:
    """ "provider:name"; a bare name, also one of OpenAI's fine-tuned ones ("ft:…"), is OpenAI's."""
    prefix, colon, rest = model.strip().partition(":")
    if not colon or prefix.lower() == "ft":
        return f"openai:{model.strip()}"
    return f"{prefix.strip().lower().replace('-', '_')}:{rest.strip()}"


def parse_fallbacks(given: Any, field: str) -> dict[str, tuple[Fallback, ...]]:
    """The chains of `{"provider:name": ["provider:name" or {"model", "context_window"}, …]}`.

    A list alone is for whatever model an agent uses; an empty one leaves it without. Raises `InputError` naming the
    entry.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = {ANY_MODEL: given}
    if not isinstance(given, Mapping):
        raise InputError("has to be a list of models, or a dict of such lists by model", field=field)
    chains: dict[str, tuple[Fallback, ...]] = {}
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


def _parse_entry(entry: Any, field: str) -> Fallback:
    if isinstance(entry, str):
        entry = {"model": entry}
    if not isinstance(entry, Mapping) or set(entry) - {"model", "context_window"}:
        raise InputError("has to be a model's name or {'model': …, 'context_window': …}", field=field)
    model, window = entry.get("model"), entry.get("context_window")
    if not isinstance(model, str) or not full_name(model).partition(":")[2]:
        raise InputError("has to name a model, such as 'openai:gpt-4.1-mini'", field=field)
    if isinstance(window, str) and window.strip().isdecimal():  # of a template
        window = int(window)
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InputError("has to be a whole number of tokens from 1 up", field=f"{field}.context_window")
    return Fallback(full_name(model), window)


def pick_fallback(
    options: Sequence[Fallback], *, needed: int, least: int, trim: bool
) -> tuple[Fallback, int | None] | None:
    """The model that takes over, and the tokens that the prompt has to be cut to, None for not at all.

    The first option that holds `needed` tokens; where none does and `trim` allows it, the roomiest one that holds the
    prompt cut to `least`. None when there is none. A window that isn't known holds anything.
    """
    for option in options:
        if option.context_window is None or option.context_window >= needed:
            return option, None
    roomiest = max(options, key=lambda option: option.context_window or 0, default=None)
    if not trim or roomiest is None or roomiest.context_window is None or roomiest.context_window < least:
        return None
    return roomiest, roomiest.context_window
