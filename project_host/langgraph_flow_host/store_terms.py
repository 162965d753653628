"""What a `langgraph.json` says under `store`: how long items are kept, and by which vectors they are searched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_DIMS = 16_000
"""Dimensions of vectors; the largest known models have some 4,000."""

_INDEX = ("embed", "dims", "fields")
_TTL = ("default_ttl", "refresh_on_read", "sweep_interval_minutes")


@dataclass(frozen=True)
class Index:
    """Search by meaning: `embed` makes vectors of `dims` numbers of the texts at these paths of an item's value."""

    embed: str
    dims: int
    fields: tuple[str, ...] = ("$",)

    @property
    def name(self) -> str:
        """Under which vectors are kept: those of two names can't be compared."""
        return f"{self.embed}/{self.dims}"


@dataclass(frozen=True)
class StoreTerms:
    """The terms of one project. `default_ttl` is in minutes."""

    index: Index | None = None
    default_ttl: float | None = None
    refresh_on_read: bool = True

    @property
    def ttl_config(self) -> dict[str, Any]:
        """The same as LangGraph's stores take it. Items that have expired are gone before they are deleted."""
        return {"default_ttl": self.default_ttl, "refresh_on_read": self.refresh_on_read, "omit_expired": True}


def store_terms(content: Any) -> StoreTerms:
    """Read `store` of a `langgraph.json`. Raises `ValueError` naming the key that is wrong."""
    store = _section(content, "store", ("index", "ttl"))
    ttl = _section(store.get("ttl"), "store.ttl", _TTL)
    default = ttl.get("default_ttl")
    if default is not None and (not _is_number(default) or default <= 0):
        raise ValueError("store.ttl.default_ttl has to be a number of minutes above 0")
    refresh = ttl.get("refresh_on_read", True)
    if not isinstance(refresh, bool):
        raise ValueError("store.ttl.refresh_on_read has to be true or false")
    return StoreTerms(_index(store.get("index")), default, refresh)


def _index(content: Any) -> Index | None:
    if content is None:
        return None
    index = _section(content, "store.index", _INDEX)
    embed, dims, fields = index.get("embed"), index.get("dims"), index.get("fields", ["$"])
    if not isinstance(embed, str) or not all(embed.rpartition(":")[::2]):
        raise ValueError(
            "store.index.embed has to be a model such as 'openai:text-embedding-3-small', or the place of a function "
            "or of LangChain's Embeddings such as './embed.py:embed'"
        )
    if not isinstance(dims, int) or isinstance(dims, bool) or not 1 <= dims <= MAX_DIMS:
        raise ValueError(f"store.index.dims has to be the length of the vectors, from 1 to {MAX_DIMS}")
    if not isinstance(fields, list) or not fields or not all(isinstance(one, str) and one for one in fields):
        raise ValueError("store.index.fields has to be a list of paths in items, such as ['text'], or ['$'] for all")
    return Index(embed, dims, tuple(fields))


def _section(content: Any, name: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} has to be an object")
    if unknown := [key for key in content if key not in known]:
        raise ValueError(f"{name} has no {unknown[0]!r}; it may have {', '.join(known)}")
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
