"""Reads agents and nodes of runs one by one, with their inputs and outputs: excerpts, and the whole values."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import Connection

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused, AirflowUnavailable
from backend.core.jsonable import dumps
from backend.core.problems import Conflict, Gone, NotFound
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import batch_items, node_values, threads, traces, value_text
from backend.db.runs.run_payload import MEDIA_TYPE
from backend.db.runs.traces import Place
from backend.db.runs.value_text import StoredText
from backend.services.runs.status import Status
from backend.services.runs.values import RETRY_AFTER, stored_text
from backend.services.runs.whole_values import Side, ValueSource, WholeText, make_text, make_text_in_process
from backend.services.triggering.catalog import unreachable

SMALL_BYTES = 256 * 1024
"""Size of a stored value up to which its text is made in a thread of this process."""

_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class Trace:
    """The row of an agent or node. `input` and `output` are whole, or what stands for one that is too large."""

    row: Row
    input: Any
    output: Any


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a value is, and its size in bytes as it is stored."""

    source: ValueSource
    size: int
    xcom: bytes = b""


class Traces:
    """Reads agents and nodes with the caller's rights."""

    def __init__(
        self, database_url: str, database: Database, large_database: Database, status: Status, airflow: AirflowClient
    ) -> None:
        self._database_url = database_url
        self._database = database
        self._large_database = large_database
        self._status = status
        self._airflow = airflow
        self._made: OrderedDict[tuple[UUID, Side], WholeText] = OrderedDict()
        """Texts that were cut into pieces lately."""
        self._one_process = asyncio.Semaphore(1)

    async def get(self, who: Principal, dag_id: str, dag_run_id: str, trace_id: UUID) -> Trace:
        """An agent or node of the run. Raises as `Status.row` does, and `NotFound` when the run has no such row."""
        run, row = await self._find(who, dag_id, dag_run_id, trace_id)
        return Trace(row, await self._shown(run, row, "input"), await self._shown(run, row, "output"))

    async def value(self, who: Principal, dag_id: str, dag_run_id: str, trace_id: UUID, side: Side) -> StoredText:
        """The whole input or output; `null` when a failed or cancelled one has none.

        Raises as `get` does, `Conflict` when it isn't there yet, with the seconds after which to ask again, and `Gone`
        with the reason when it isn't kept, or not any more.
        """
        run, row = await self._find(who, dag_id, dag_run_id, trace_id)
        if side == "output" and row["state"] == "running":
            what = "agent" if row["node"] is None else "node"
            raise Conflict(
                f"The {what} is running; its output is available once it has finished.", retry_after=RETRY_AFTER
            )
        if row[f"{side}_parts"] is None:
            return stored_text(dumps(row[side]).encode())
        made = await self._whole(run, row, side)
        return StoredText(str(row["execution_id"]), made.size, made.sha256, made.whole)

    async def _find(self, who: Principal, dag_id: str, dag_run_id: str, trace_id: UUID) -> tuple[Row, Row]:
        run = await self._status.row(who, dag_id, dag_run_id)
        row = await self._database.run(traces.get, str(run["id"]), trace_id)
        if row is None:
            raise NotFound(f"The run has no agent or node with the id {trace_id}.")
        return run, row

    async def _shown(self, run: Row, row: Row, side: Side) -> Any:
        if row[f"{side}_parts"] is None:
            return row[side]
        size, reason = None, None
        try:
            size = (await self._whole(run, row, side)).size
        except (Gone, Conflict) as problem:
            reason = problem.detail
        place = "/".join(quote(run[name], safe="") for name in ("dag_id", "dag_run_id"))
        return {
            "truncated": True,
            "bytes": size,
            "media_type": MEDIA_TYPE,
            "excerpt": dumps(row[side]),
            "url": f"/workflow-status/{place}/traces/{row['id']}/{side}",
            "reason": reason,
        }

    async def _whole(self, run: Row, row: Row, side: Side) -> WholeText:
        key = (row["id"], side)
        made = self._made.get(key)
        if made is not None and await self._database.run(value_text.is_kept, made.sha256):
            return made
        if row["node"] is None and side == "output" and row["item_index"] is None:
            found = await self._in_result(run, row)
        else:
            found = await self._database.run(_find_source, run, row, side)
        if found.size <= SMALL_BYTES:
            made = await self._large_database.run(make_text, found.source, found.xcom)
        else:
            async with self._one_process:
                made = await make_text_in_process(self._database_url, found.source, found.xcom)
        if made.whole is None:
            self._made[key] = made
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return made

    async def _in_result(self, run: Row, row: Row) -> _Found:
        """An agent's output, in what its task returned."""
        if row["repeated"]:
            raise Gone("The agent has run again since, and its task's result is what it returned then.")
        if row["task_state"] in ("failed", "upstream_failed", "skipped", "removed"):
            raise Gone("Its task did not succeed, so it has no result with this output in it.")
        if row["task_state"] != "success":
            raise Conflict(
                "Its task is running; the whole output is available once it has finished.", retry_after=RETRY_AFTER
            )
        try:
            xcom = await self._airflow.xcom_text(run["dag_id"], run["dag_run_id"], row["task_id"], row["map_index"])
        except AirflowUnavailable as error:
            raise unreachable() from error
        except AirflowRefused as refused:
            if refused.status != 404:
                raise unreachable() from refused
            raise Gone("Airflow has deleted what the task returned.") from None
        except AirflowError as error:
            raise unreachable() from error
        source = ValueSource("output", row["output_parts"], None, agent=row["agent_name"])
        return _Found(source, len(xcom), xcom)


def _find_source(connection: Connection, run: Row, row: Row, side: Side) -> _Found:
    """Find a value in the database. Raises `Gone` and `Conflict`."""
    execution_id, item = str(run["id"]), row["item_index"]
    where = Place(run["dag_id"], run["dag_run_id"], row["task_id"], row["map_index"], row["try_number"], item=item)
    if row["node"] is None and side == "output":
        size = batch_items.output_size(connection, execution_id, where)
        if size is None:
            raise Gone("The batch has run again since.")
        return _Found(ValueSource(side, [], None, item=(execution_id, where)), size)
    if row["node"] is not None and row["checkpoint_task"] is None:
        raise Gone(
            "The agent ran without keeping its steps: checkpoint=False, durability='exit', or the database was away."
        )
    thread_id = threads.thread_of(where.dag_id, where.dag_run_id, where.task_id, where.map_index)
    thread = node_values.find_thread(connection, execution_id, thread_id, row["agent_name"], item)
    if thread is None:
        raise Gone("The run's checkpoints are deleted (VISUAL_AI_CHECKPOINT_RETENTION_DAYS).")
    parts, excerpt = row[f"{side}_parts"], row[side]
    if row["node"] is None:
        sizes = node_values.start_sizes(connection, thread.agents)
        if not sizes:
            raise _missing(run, row, thread)
        return _Found(ValueSource(side, parts, excerpt, agents=tuple(thread.agents)), sum(sizes))
    found = node_values.find_execution(connection, thread.agents, row["checkpoint_task"])
    if found is None:
        raise _missing(run, row, thread)
    size = found.bytes if side == "output" else node_values.state_size(connection, found)
    return _Found(ValueSource(side, parts, excerpt, execution=found, task=row["checkpoint_task"]), size)


def _missing(run: Row, row: Row, thread: node_values.Thread) -> Gone | Conflict:
    if thread.thinned:
        return Gone("The checkpoints of all but the last step are deleted (VISUAL_AI_CHECKPOINT_HISTORY_DAYS).")
    if thread.try_number > row["try_number"]:
        return Gone("The task has started again from nothing since, which deleted its checkpoints.")
    if run["state"] not in TERMINAL_RUN_STATES:
        return Conflict("It is not in the checkpoints yet.", retry_after=RETRY_AFTER)
    return Gone("It is not in the checkpoints: the agent, or a graph inside of it, doesn't keep any.")
