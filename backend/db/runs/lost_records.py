"""Finds what ended runs lack of agents and nodes, and writes it again.

A task whose database was away for too long, or whose process was killed, leaves rows of `agent_traces` unwritten. Which
nodes ran is also in its checkpoints: each execution of a node has writes there, under the id that its row keeps in
`checkpoint_task`. Inputs and outputs aren't copied: they are read from the checkpoints when somebody asks for them.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows
from backend.db.runs import leftovers, threads, traces
from backend.db.runs.traces import Place

LIMIT = 100
"""Runs that one call of `find` returns."""

NODE_NOTICE = "Its record was lost and is restored from the checkpoints, without model, tokens and cost."
AGENT_NOTICE = "Its record was lost and is restored from what the task returned."

_FIND = text(
    """
    SELECT e.id::text, e.dag_id, e.dag_run_id, e.updated_at FROM visual_ai.workflow_executions e
    WHERE e.finished_at > clock_timestamp() - make_interval(secs => :within) AND e.pruned_seq = 0
        AND e.state IN ('success', 'failed', 'cancelled')
        AND e.updated_at > CAST(:since AS timestamptz)
        AND e.updated_at < clock_timestamp() - make_interval(secs => :after)
    ORDER BY e.updated_at LIMIT :limit
    """
)
_NODES = text(
    """
    WITH written AS MATERIALIZED (
        SELECT th.thread_id AS task_thread, th.try_number, w.thread_id, w.checkpoint_ns, w.checkpoint_id,
            w.task_id AS task, max(w.task_path) AS path, bool_or(w.idx >= 0) AS succeeded
        FROM visual_ai.workflow_threads th
        JOIN visual_ai.checkpoint_writes w ON w.thread_id = ANY(th.agents)
        WHERE th.execution_id = CAST(:id AS uuid) AND NOT th.thinned AND (w.idx >= 0 OR w.channel = '__error__')
        GROUP BY th.thread_id, th.try_number, w.thread_id, w.checkpoint_ns, w.checkpoint_id, w.task_id
    ), recorded AS MATERIALIZED (
        SELECT checkpoint_task AS task, bool_or(state IN ('success', 'running')) AS succeeded
        FROM visual_ai.agent_traces WHERE execution_id = CAST(:id AS uuid) AND checkpoint_task IS NOT NULL
        GROUP BY checkpoint_task
    )
    SELECT written.* FROM written LEFT JOIN recorded USING (task)
    WHERE (recorded.task IS NULL OR written.succeeded AND NOT recorded.succeeded)
        AND NOT starts_with(written.path, '~__pregel_pull, __start__')
    """
)
_CHECKPOINTS = text(
    """
    SELECT thread_id, checkpoint_ns, checkpoint_id, metadata ->> 'visual_ai_agent' AS agent,
        CAST(checkpoint ->> 'ts' AS timestamptz) AS began,
        lead(CAST(checkpoint ->> 'ts' AS timestamptz)) OVER (
            PARTITION BY thread_id, checkpoint_ns ORDER BY checkpoint_id) AS ended
    FROM visual_ai.checkpoints WHERE thread_id = ANY(:threads)
    """
)
_TASKS = text(
    """
    SELECT t.task_id, t.map_index, t.try_number, t.state, coalesce(t.started_at, t.updated_at) AS started_at,
        coalesce(t.finished_at, t.updated_at) AS finished_at,
        -- Nodes that an earlier release recorded, or a graph that keeps no steps, can't be compared.
        EXISTS (
            SELECT FROM visual_ai.agent_traces n WHERE n.execution_id = t.execution_id AND n.task_id = t.task_id
                AND n.map_index = t.map_index AND n.node IS NOT NULL AND n.checkpoint_task IS NULL) AS unmarked,
        EXISTS (
            SELECT FROM visual_ai.batch_items b WHERE b.execution_id = t.execution_id AND b.task_id = t.task_id
                AND b.map_index = t.map_index) AS batch
    FROM visual_ai.workflow_tasks t WHERE t.execution_id = CAST(:id AS uuid)
    """
)
_AGENTS = text(
    """
    SELECT task_id, map_index, try_number, agent_name, agent_type, item_index, state, notice, input_tokens,
        output_tokens, cost_usd, id::text
    FROM visual_ai.agent_traces WHERE execution_id = CAST(:id AS uuid) AND node IS NULL
    """
)
_COMPLETE_AGENT = text(
    """
    UPDATE visual_ai.agent_traces SET input_tokens = :input_tokens, output_tokens = :output_tokens,
        cost_usd = :cost_usd, model = coalesce(model, :model), notice = :notice
    WHERE id = CAST(:id AS uuid)
    """
)
_RAISE_TOTALS = text(
    """
    UPDATE visual_ai.workflow_executions e SET
        input_tokens = greatest(e.input_tokens, used.input_tokens),
        output_tokens = greatest(e.output_tokens, used.output_tokens),
        cost_usd = greatest(e.cost_usd, used.cost_usd)
    FROM (
        SELECT coalesce(sum(input_tokens), 0) AS input_tokens, coalesce(sum(output_tokens), 0) AS output_tokens,
            sum(cost_usd) AS cost_usd
        FROM visual_ai.agent_traces WHERE execution_id = CAST(:id AS uuid) AND node IS NULL
    ) used
    WHERE e.id = CAST(:id AS uuid) AND (e.input_tokens, e.output_tokens) IS DISTINCT FROM (
        greatest(e.input_tokens, used.input_tokens), greatest(e.output_tokens, used.output_tokens))
    """
)

Instance = tuple[str, int]
"""A task's id and map index."""


@dataclass(frozen=True, slots=True)
class LostNode:
    """A node's execution that the checkpoints have, and the records don't."""

    place: Place
    node: str
    task: str
    succeeded: bool
    began: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class Lost:
    """What a run lacks."""

    nodes: Sequence[LostNode]
    tasks: Mapping[Instance, Row]
    agents: Sequence[Row]
    """The agents that are recorded."""

    def incomplete(self, seen: Sequence[Instance]) -> list[Instance]:
        """The task instances whose agents have to be looked up in what they returned: those of lost nodes, those
        that ended unrecorded, and those of `seen` without any record."""
        known = {(row["task_id"], row["map_index"]) for row in self.agents}
        unrecorded = [place for place in seen if place not in known]
        unended = [(row["task_id"], row["map_index"]) for row in self.agents if row["notice"] == leftovers.NOTICE]
        without = [
            (one.place.task_id, one.place.map_index)
            for one in self.nodes
            if not any(_is_of(row, one.place) for row in self.agents)
        ]
        return [place for place in dict.fromkeys([*unrecorded, *unended, *without]) if place in self.tasks]


def find(connection: Connection, *, since: datetime, after: float, within: float) -> list[Row]:
    """Runs that ended less than `within` seconds ago and were last changed later than `since` and more than `after`
    seconds ago, in the order of that change; at most `LIMIT`."""
    values = {"since": since, "after": after, "within": within, "limit": LIMIT}
    return all_rows(connection.execute(_FIND, values))


def read(connection: Connection, run: Row) -> Lost:
    """What the run lacks. Nothing is known of task instances that keep no checkpoints."""
    tasks = {(row["task_id"], row["map_index"]): row for row in all_rows(connection.execute(_TASKS, {"id": run["id"]}))}
    agents = all_rows(connection.execute(_AGENTS, {"id": run["id"]}))
    written = all_rows(connection.execute(_NODES, {"id": run["id"]}))
    if not written:
        return Lost([], tasks, agents)
    ids = sorted({row["thread_id"] for row in written})
    checkpoints = {
        (row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]): row
        for row in all_rows(connection.execute(_CHECKPOINTS, {"threads": ids}))
    }
    prefix = threads.thread_of(run["dag_id"], run["dag_run_id"], "", 0).removesuffix("/0").removesuffix("/") + "/"
    nodes = []
    for row in written:
        task_id, _, map_index = row["task_thread"].removeprefix(prefix).rpartition("/")
        task = tasks.get((task_id, int(map_index)))
        checkpoint = checkpoints.get((row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]))
        if task is None or task["unmarked"] or checkpoint is None or checkpoint["agent"] is None:
            continue
        part = row["thread_id"].removeprefix(row["task_thread"]).lstrip("/").partition("/")[0]
        item = int(part) if task["batch"] and part.isdigit() else None
        agent = checkpoint["agent"]
        kind = next((one["agent_type"] for one in agents if one["agent_name"] == agent), None)
        place = Place(run["dag_id"], run["dag_run_id"], task_id, int(map_index), row["try_number"], agent, kind, item)
        names = [part.partition(":")[0] for part in row["checkpoint_ns"].split("|") if part]
        # The path is `~__pregel_pull, <node>` or `~__pregel_push, <index>…, <node>`.
        name = "/".join([*names, row["path"].rsplit(", ", 1)[-1]])
        nodes.append(LostNode(place, name, row["task"], row["succeeded"], checkpoint["began"], checkpoint["ended"]))
    return Lost(sorted(nodes, key=lambda one: one.began), tasks, agents)


def write_nodes(connection: Connection, execution_id: str, nodes: Sequence[LostNode]) -> None:
    """Write the rows of lost nodes, and say so at their agents."""
    rows = []
    for one in nodes:
        values = {
            "id": str(uuid.uuid5(uuid.UUID(execution_id), f"{one.task}/{one.succeeded}")),
            "node": one.node,
            "state": "success" if one.succeeded else "failed",
            "started_at": one.began,
            "finished_at": one.ended or one.began,
            "input_tokens": 0,
            "output_tokens": 0,
            "notice": NODE_NOTICE,
        }
        row = traces.row(one.place, **values)
        # Cut to nothing: the values are read from the checkpoints.
        rows.append({**row, "execution_id": execution_id, "checkpoint_task": one.task, **_NOT_COPIED})
    traces.write(connection, rows)
    counts: dict[Place, int] = {}
    for one in nodes:
        if one.place.item is None:
            counts[one.place] = counts.get(one.place, 0) + 1
    for place, count in counts.items():
        notice = f"the records of {count} of its nodes were lost, and are restored from the checkpoints"
        traces.add_notice(connection, execution_id, place, notice)


_NOT_COPIED: dict[str, list[str]] = {"input_parts": [], "output_parts": []}


def write_agent(
    connection: Connection, execution_id: str, place: Place, task: Row, returned: Mapping[str, Any], *, lost: Lost
) -> None:
    """Write the row of an agent as its task returned it: `state`, `model`, `usage`, `cost_usd`, `output`, …"""
    known = [row for row in lost.agents if _is_of(row, place)]
    unended = next((row for row in known if row["notice"] == leftovers.NOTICE), None)
    used = _used(returned, [row for row in known if row is not unended])
    if unended is not None:
        values = {**used, "model": returned.get("model"), "id": unended["id"]}
        connection.execute(_COMPLETE_AGENT, {**values, "notice": returned.get("notice")})
    elif not known:
        nodes = [one for one in lost.nodes if one.place == place]
        values = {
            "id": str(uuid.uuid5(uuid.UUID(execution_id), f"{place.task_id}/{place.map_index}/{place.agent}")),
            "node": None,
            "model": returned.get("model"),
            "state": returned.get("state", "success"),
            "started_at": nodes[0].began if nodes else task["started_at"],
            "finished_at": task["finished_at"],
            "trace_id": returned.get("trace_id"),
            "trace_url": returned.get("trace_url"),
            "notice": f"{AGENT_NOTICE} {returned.get('notice') or ''}".strip(),
            "output": returned.get("output"),
            **used,
        }
        row = {**traces.row(place, **values), "execution_id": execution_id}
        traces.write(connection, [{**row, "input_parts": []} if nodes else row])
    connection.execute(_RAISE_TOTALS, {"id": execution_id})


def _used(returned: Mapping[str, Any], earlier: Sequence[Row]) -> dict[str, Any]:
    """What the agent used in its last try: the task returns what it used in all."""
    usage = returned.get("usage") or {}
    used: dict[str, Any] = {
        name: max(0, int(usage.get(name) or 0) - sum(row[name] for row in earlier))
        for name in ("input_tokens", "output_tokens")
    }
    cost = returned.get("cost_usd")
    before = sum((row["cost_usd"] or Decimal(0) for row in earlier), Decimal(0))
    return {**used, "cost_usd": max(Decimal(0), Decimal(str(cost)) - before) if cost is not None else None}


def _is_of(row: Row, place: Place) -> bool:
    key = (row["task_id"], row["map_index"], row["agent_name"], row["item_index"])
    return key == (place.task_id, place.map_index, place.agent, place.item)
