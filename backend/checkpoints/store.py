"""LangGraph's store in the product's database, with search by meaning.

LangGraph's own search by vectors needs the extension `pgvector`, and has one index for all. Here each project has its
own, in any PostgreSQL. Of the vectors that a search is about, the database compares the signs, bit by bit; the nearest
are then compared exactly. See Charikar, Similarity Estimation Techniques from Rounding Algorithms (STOC 2002), for how
well signs stand for the angle between vectors.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from langgraph.store.base import GetOp, Op, PutOp, Result, SearchItem, SearchOp
from langgraph.store.postgres.aio import AsyncPostgresStore

from backend.checkpoints.pool import Pool
from backend.core.errors.agent_errors import UnstorableOutputError
from backend.core.exact_json import NoJsonFormError, to_json
from backend.core.problems import pointer
from backend.db.outage import retry_until_available
from langgraph_flow_host.embedding import Embedder, Vectors
from langgraph_flow_host.store_terms import StoreTerms

COMPARED = 1_000
"""Vectors that are compared exactly, at least."""

COMPARED_NUMBERS = 2_000_000
"""How many numbers the vectors that are compared exactly may have together, if that makes more of them: 8 MB. The fewer
dimensions vectors have, the less their signs say."""

_INSERT = """
    INSERT INTO store_vectors (prefix, key, index_name, path, embedding, signs)
    VALUES (%s, %s, %s, %s, %s, CAST(%s AS varbit)) ON CONFLICT DO NOTHING
"""
_NEAREST = """
    SELECT store.prefix, store.key, v.embedding
    FROM store JOIN store_vectors v ON v.prefix = store.prefix AND v.key = store.key
    WHERE v.index_name = %s AND {condition}
    ORDER BY bit_count(v.signs # CAST(%s AS varbit))
    LIMIT %s
"""


class Store(AsyncPostgresStore):
    """LangGraph's store, which waits for a database that is being restarted instead of failing."""

    def __init__(self, pool: Pool, terms: StoreTerms | None = None, embedder: Embedder | None = None) -> None:
        """Without an `embedder` items are stored without vectors, and a search's `query` orders nothing."""
        super().__init__(pool, ttl=(terms or StoreTerms()).ttl_config)  # type: ignore[arg-type]  # None is for ever
        self._embedder = embedder

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out the operations. Every method of the store ends up here.

        Items are stored as JSON, converted like a graph's output. Raises `UnstorableOutputError` naming a part of one
        that has no JSON form, and what the embedding model's client raises.
        """
        storable = _storable(ops)
        if self._embedder is None:
            return await retry_until_available(partial(super().abatch, storable))
        vectors = await self._embedder.vectors(storable)
        return await self._carry_out(storable, vectors, self._embedder.index.name)

    async def with_vectors(self, ops: Iterable[Op], vectors: Sequence[Vectors | None], index: str) -> list[Result]:
        """Carry out operations whose vectors have been made, as those of this index. Raises as `abatch`."""
        return await self._carry_out(_storable(ops), vectors, index)

    async def _carry_out(self, ops: Sequence[Op], vectors: Sequence[Vectors | None], index: str) -> list[Result]:
        results: list[Result] = [None] * len(ops)
        # Of several puts and deletions of an item, the last counts. In order, so that nobody waits for each other.
        last = {(op.namespace, op.key): number for number, op in enumerate(ops) if isinstance(op, PutOp)}
        puts: list[tuple[PutOp, Vectors]] = []
        for _, number in sorted(last.items()):
            if (found := vectors[number]) and isinstance(op := ops[number], PutOp):
                puts.append((op, found))
        plain = []
        for number, op in enumerate(ops):
            if isinstance(op, PutOp) and last[op.namespace, op.key] != number:
                continue
            if not (found := vectors[number]):
                plain.append(number)
            elif isinstance(op, SearchOp):
                results[number] = await retry_until_available(partial(self._nearest, op, found[0][1], index))
        done = await retry_until_available(partial(super().abatch, [ops[number] for number in plain]))
        for number, result in zip(plain, done, strict=True):
            results[number] = result
        if puts:
            await retry_until_available(partial(self._put, puts, index))
        return results

    async def _put(self, puts: Sequence[tuple[PutOp, Vectors]], index: str) -> None:
        rows = [
            (".".join(op.namespace), op.key, index, path, vector, _signs(vector))
            for op, vectors in puts
            for path, vector in vectors
        ]
        async with self._connections.connection() as connection, connection.transaction():
            for query, arguments in self._prepare_batch_PUT_queries([*enumerate(op for op, _ in puts)])[0]:
                await connection.execute(query, arguments)  # a trigger deletes the vectors of what was there
            async with connection.cursor() as cursor:
                await cursor.executemany(_INSERT, rows)

    async def _nearest(self, op: SearchOp, vector: bytes, index: str) -> list[SearchItem]:
        """The items with the vectors nearest to this one, each with the cosine of the angle as its score."""
        wanted = op.offset + op.limit
        compared = max(COMPARED, COMPARED_NUMBERS // (len(vector) // 4), 2 * wanted)
        condition, arguments = self._condition(op)
        async with self._connections.connection() as connection, connection.cursor(binary=True) as cursor:
            statement = _NEAREST.format(condition=condition)
            await cursor.execute(statement, (index, *arguments, _signs(vector), compared))
            rows: list[Any] = await cursor.fetchall()
        scores = _cosines([row["embedding"] for row in rows], vector)
        best: dict[tuple[str, str], float] = {}
        for row, score in zip(rows, scores, strict=True):
            place = row["prefix"], row["key"]
            best[place] = max(best.get(place, -1.0), score)
        places = sorted(best, key=lambda place: -best[place])[op.offset : wanted]
        gets = [GetOp(tuple(prefix.split(".")), key, op.refresh_ttl) for prefix, key in places]
        found: list[Any] = await super().abatch(gets)
        return [
            SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, best[place])
            for place, item in zip(places, found, strict=True)
            if item is not None  # it was deleted meanwhile
        ]

    def _condition(self, op: SearchOp) -> tuple[str, list[Any]]:
        """The items that a search is about, with the namespace and the filter as LangGraph's own search has them."""
        conditions = ["(store.expires_at IS NULL OR store.expires_at > now())"]
        arguments: list[Any] = []
        if op.namespace_prefix:
            place = ".".join(op.namespace_prefix)
            conditions.append(r"(store.prefix = %s OR store.prefix LIKE %s ESCAPE '\')")
            arguments.extend((place, re.sub(r"([\\%_])", r"\\\1", place) + ".%"))
        for key, wanted in (op.filter or {}).items():
            for operator, value in (wanted if isinstance(wanted, dict) else {"$eq": wanted}).items():
                condition, of_filter = self._get_filter_condition(key, operator, value)
                conditions.append(condition)
                arguments.extend(of_filter)
        return " AND ".join(conditions), arguments

    @property
    def _connections(self) -> Pool:
        pool: Any = self.conn
        found: Pool = pool
        return found


def _signs(vector: bytes) -> str:
    return "".join("1" if number > 0 else "0" for number in array("f", vector))


def _cosines(vectors: Sequence[bytes], other: bytes) -> list[float]:
    if not vectors:
        return []
    import numpy  # takes a tenth of a second, and few tasks search

    rows = numpy.frombuffer(b"".join(vectors), numpy.float32).reshape(len(vectors), -1)
    one = numpy.frombuffer(other, numpy.float32)
    lengths = numpy.linalg.norm(rows, axis=1) * numpy.linalg.norm(one)
    return [float(score) for score in (rows @ one) / numpy.where(lengths == 0, 1, lengths)]


def _storable(ops: Iterable[Op]) -> list[Op]:
    return [_as_json(op) if isinstance(op, PutOp) and op.value is not None else op for op in ops]


def _as_json(op: PutOp) -> PutOp:
    try:
        return op._replace(value=to_json(op.value))
    except NoJsonFormError as error:
        item = f"{'/'.join(op.namespace)}/{op.key}"
        raise UnstorableOutputError(
            f"the store can't hold the item {item!r}: {pointer(*error.path[:10])} {error.fault}"
        ) from None
