"""Names of models as keys of settings: "provider:name", a bare name of OpenAI's, or "provider:*"."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

ANY_MODEL = "*"

Entry = TypeVar("Entry")


def check_names(names: Iterable[str]) -> None:
    """Raise `ValueError` for a key that is not a model name."""
    for name in names:
        provider, colon, model = name.partition(":")
        if name != name.strip() or not provider or (colon and not model):
            raise ValueError(
                f"“{name}” is not a model name: write provider:name, or provider:{ANY_MODEL} for all other models"
            )


def entry_of(entries: Mapping[str, Entry], model: str) -> Entry | None:
    """The entry of "provider:name" or "provider:name@scope": the one for its name, else that for the other models of
    its provider.

    A key without a provider stands for a model of OpenAI.
    """
    name = model.rpartition("@")[0] or model
    provider, _, bare = name.partition(":")
    for key in (name, bare if provider == "openai" else None, f"{provider}:{ANY_MODEL}"):
        if key is not None and key in entries:
            return entries[key]
    return None
