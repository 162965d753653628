"""Compares two runs: their inputs and results, and agent by agent the nodes that ran, with what they returned and cost.

Agents are told by task and name, and the nodes of an agent are aligned in their order, like the lines of two texts: a
fork has only those that ran after the state that it was forked from.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from backend.core.jsonable import dumps
from backend.core.large_values import in_thread
from backend.core.problems import pointer
from backend.core.roles import Principal
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import comparison, executions, results
from backend.db.runs.traces import label
from backend.services.runs.json_diff import MISSING, differences
from backend.services.runs.status import Status

_DIFFERENCES = 200
_VALUE = 500
"""Characters of the JSON text of a value that differs."""

_AgentKey = tuple[str, int, str]


_OF_EVERY_RUN = re.compile(r"(/agents/[^/]+)?/trace_(id|url)")
"""What of a result is another in each run."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two runs' rows, with what is the same and what isn't. `cut`: a run has too many nodes, or differences."""

    left: Row
    right: Row
    agents: list[dict[str, Any]]
    input: list[dict[str, Any]]
    result: list[dict[str, Any]]
    cut: bool


@dataclass(frozen=True, slots=True)
class _Side:
    row: Row
    input: Any
    result: Any
    rows: list[Row]


class Comparisons:
    """Compares runs that the caller may see."""

    def __init__(self, database: Database, status: Status) -> None:
        self._database = database
        self._status = status

    async def compare(self, who: Principal, left: tuple[str, str], right: tuple[str, str]) -> Compared:
        """Compare two runs, each a DAG and a run. Raises as `Status.row` does."""
        sides = await asyncio.gather(*(self._side(who, *run) for run in (left, right)))
        return await in_thread(partial(_compared, *sides))

    async def _side(self, who: Principal, dag_id: str, dag_run_id: str) -> _Side:
        row = await self._status.row(who, dag_id, dag_run_id)

        def read(connection: Connection) -> _Side:
            execution_id = str(row["id"])
            shown = executions.read(connection, execution_id)
            found = comparison.read(connection, execution_id)
            return _Side(shown, results.shown_input(shown), results.shown(connection, shown), found)

        return await self._database.run(read)


def _compared(left: _Side, right: _Side) -> Compared:
    inputs = _changes(left.input, right.input)
    results = [one for one in _changes(left.result, right.result) if not _OF_EVERY_RUN.fullmatch(one["pointer"])]
    nodes = max(len(side.rows) for side in (left, right))
    cut = nodes > comparison.MOST or max(len(inputs), len(results)) > _DIFFERENCES
    agents = _agents(left.rows[: comparison.MOST], right.rows[: comparison.MOST])
    return Compared(left.row, right.row, agents, inputs[:_DIFFERENCES], results[:_DIFFERENCES], cut)


def _agents(left: Sequence[Row], right: Sequence[Row]) -> list[dict[str, Any]]:
    sides = [_by_agent(rows) for rows in (left, right)]
    found = []
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = (side.get(key, (None, [])) for side in sides)
        task_id, map_index, agent = key
        nodes = [{"node": name, **_pair(*pair)} for name, *pair in _aligned(one[1], other[1])]
        found.append(
            {"task_id": task_id, "map_index": map_index, "agent": agent, **_pair(one[0], other[0]), "nodes": nodes}
        )
    return found


def _by_agent(rows: Iterable[Row]) -> dict[_AgentKey, tuple[Row | None, list[Row]]]:
    """For each agent its last run, and all of its nodes."""
    found: dict[_AgentKey, tuple[Row | None, list[Row]]] = {}
    for row in rows:
        key = (row["task_id"], row["map_index"], str(label(row["agent_name"], row["item_index"])))
        last, nodes = found.get(key, (None, []))
        found[key] = (row, nodes) if row["node"] is None else (last, [*nodes, row])
    return found


def _aligned(left: Sequence[Row], right: Sequence[Row]) -> Iterable[tuple[str, Row | None, Row | None]]:
    one_names, other_names = ([str(row["node"]) for row in rows] for rows in (left, right))
    matched = SequenceMatcher(None, one_names, other_names, autojunk=False)
    for kind, start, stop, other_start, other_stop in matched.get_opcodes():
        if kind == "equal":
            for one, other in zip(left[start:stop], right[other_start:other_stop], strict=True):
                yield one["node"], one, other
        else:
            yield from ((one["node"], one, None) for one in left[start:stop])
            yield from ((other["node"], None, other) for other in right[other_start:other_stop])


def _pair(left: Row | None, right: Row | None) -> dict[str, Any]:
    same = left is not None and right is not None and left["hash"] == right["hash"]
    return {"left": _shown(left), "right": _shown(right), "same_output": same}


def _shown(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    names = ("state", "model", "started_at", "latency_ms", "input_tokens", "output_tokens", "try_number")
    cost = row["cost_usd"]
    return {
        "id": str(row["id"]),
        **{name: row[name] for name in names},
        "cost_usd": float(cost) if cost is not None else None,
        "output": row["excerpt"],
        "output_cut": row["cut"] or (row["bytes"] or 0) > len((row["excerpt"] or "").encode()),
    }


def _changes(left: Any, right: Any) -> list[dict[str, Any]]:
    """What differs between two inputs or results; one that is large only stands there by reference."""
    by_reference = [isinstance(value, Mapping) and value.get("truncated") is True for value in (left, right)]
    if any(by_reference):
        if all(by_reference) and left["sha256"] == right["sha256"]:
            return []
        return [{"pointer": "", "left": _text(left), "right": _text(right)}]
    found = islice(differences(left, right), _DIFFERENCES + 1)
    return [{"pointer": pointer(*one.path), "left": _text(one.left), "right": _text(one.right)} for one in found]


def _text(value: Any) -> str | None:
    if value is MISSING:
        return None
    text = dumps(value)
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"
