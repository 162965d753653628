"""What a langgraph.json may say of the store, and what is wrong with anything else."""

import json
from typing import Any

import pytest

from langgraph_flow_host.store_terms import Index, StoreTerms, store_terms
from tests.kit.documents.snippets import snippet

INDEX = {"embed": "openai:text-embedding-3-small", "dims": 1_536}


@pytest.mark.parametrize(
    ("content", "terms"),
    [
        (None, StoreTerms()),
        ({}, StoreTerms()),
        ({"index": INDEX}, StoreTerms(Index("openai:text-embedding-3-small", 1_536, ("$",)))),
        (
            {"index": {"embed": "./embed.py:embed", "dims": 3, "fields": ["text", "title"]}},
            StoreTerms(Index("./embed.py:embed", 3, ("text", "title"))),
        ),
        (
            {"ttl": {"default_ttl": 60, "refresh_on_read": False, "sweep_interval_minutes": 10}},
            StoreTerms(None, 60, False),
        ),
    ],
)
def test_terms(content: Any, terms: StoreTerms) -> None:
    assert store_terms(content) == terms


def test_the_documented_terms() -> None:
    content = json.loads(snippet("store-terms"))
    index = Index("openai:text-embedding-3-small", 1_536, ("text",))
    assert store_terms(content["store"]) == StoreTerms(index, 43_200)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ([], "store"),
        ({"indices": {}}, "store"),
        ({"index": "openai:x"}, "store.index"),
        ({"index": {**INDEX, "model": "x"}}, "store.index"),
        ({"index": {**INDEX, "embed": "text-embedding-3-small"}}, "store.index.embed"),
        ({"index": {**INDEX, "embed": None}}, "store.index.embed"),
        ({"index": {"embed": "openai:x"}}, "store.index.dims"),
        ({"index": {**INDEX, "dims": True}}, "store.index.dims"),
        ({"index": {**INDEX, "dims": 0}}, "store.index.dims"),
        ({"index": {**INDEX, "fields": []}}, "store.index.fields"),
        ({"index": {**INDEX, "fields": "text"}}, "store.index.fields"),
        ({"ttl": {"default_ttl": 0}}, "store.ttl.default_ttl"),
        ({"ttl": {"default_ttl": "1"}}, "store.ttl.default_ttl"),
        ({"ttl": {"refresh_on_read": 1}}, "store.ttl.refresh_on_read"),
    ],
)
def test_what_is_wrong_is_named(content: Any, key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key} has "):
        store_terms(content)
