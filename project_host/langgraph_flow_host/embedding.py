"""Makes the vectors by which LangGraph's store searches, in the environment of whoever uses the store."""

import json
import os
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import Op, PutOp, SearchOp, ensure_embeddings, get_text_at_path

from langgraph_flow_host.store_terms import Index

Vectors = list[tuple[str, bytes]]
"""The vectors of an operation, as 32-bit floats in the machine's order: of an item one for each text, with the text's
path; of a search one."""


class Embedder:
    """Makes the vectors of one index."""

    def __init__(self, index: Index, find: Callable[[str], Any]) -> None:
        """`find` imports what stands at a place in the project. Nothing is made before it is needed."""
        self.index = index
        self._find = find
        self._embeddings: Embeddings | None = None

    async def vectors(self, ops: Sequence[Op]) -> list[Vectors | None]:
        """For each operation its vectors; None for one that needs none, and an empty list for an item without texts.

        All texts are embedded with one request. Raises what the model's client raises, before anything is stored, and
        `ValueError` for vectors of another length than the index has.
        """
        found: list[Vectors | None] = [None] * len(ops)
        texts: list[str] = []
        places: list[tuple[Vectors, str]] = []
        for number, op in enumerate(ops):
            if isinstance(op, PutOp) and op.value is not None and op.index is not False:
                of_item = found[number] = []
                for path in dict.fromkeys(self.index.fields if op.index is None else op.index):
                    for label, text in _texts(op.value, path):
                        texts.append(text)
                        places.append((of_item, label))
        if texts:
            made = await self._model().aembed_documents(texts)
            for (of_item, label), vector in zip(places, made, strict=True):
                of_item.append((label, self._packed(vector)))
        for number, op in enumerate(ops):
            if isinstance(op, SearchOp) and op.query:
                found[number] = [("", self._packed(await self._model().aembed_query(op.query)))]
        return found

    def _model(self) -> Embeddings:
        if self._embeddings is None:
            self._embeddings = _embeddings(self.index.embed, self._find)
        return self._embeddings

    def _packed(self, vector: Sequence[float]) -> bytes:
        if len(vector) != self.index.dims:
            raise ValueError(
                f"store.index.dims is {self.index.dims}, but {self.index.embed} makes vectors of {len(vector)} numbers"
            )
        return array("f", vector).tobytes()


def _is_model(embed: str) -> bool:
    """Whether it is a model's name, `provider:model`, and not the place of something in the project."""
    left = embed.partition(":")[0]
    return "." not in left and "/" not in left


def _embeddings(embed: str, find: Callable[[str], Any]) -> Embeddings:
    if not _is_model(embed):
        return ensure_embeddings(find(embed))
    from langchain.embeddings import init_embeddings

    provider = embed.partition(":")[0]
    more: dict[str, Any] = {}
    if provider == "openai" and (os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")):
        # Other servers take texts, and not OpenAI's tokens, for which the client would have to load a vocabulary.
        more["check_embedding_ctx_length"] = False
    return init_embeddings(embed, **more)


def _texts(value: Any, path: str) -> list[tuple[str, str]]:
    """The texts at a path of an item's value, each with the path that leads to it alone."""
    if path == "$":
        return [(path, json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))]
    found = get_text_at_path(value, path)
    labels = [path] if len(found) == 1 else [f"{path}.{number}" for number in range(len(found))]
    return [(label, text) for label, text in zip(labels, found, strict=True) if text.strip()]  # models refuse others
