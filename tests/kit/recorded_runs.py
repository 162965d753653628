"""Runs written to the database the way the listener and the agents record them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from backend.core.events import Event, NewEvent
from backend.core.states import TaskState
from backend.db.runs import events, observations, reasons, results, traces
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult
from backend.db.runs.traces import Place


class RecordedRun:
    """A run that belongs to `ulla`. A test takes it through its life."""

    def __init__(self, database: Engine, dag_id: str, dag_run_id: str = "run", *, user: str = "ulla") -> None:
        self._database = database
        self.dag_id = dag_id
        self.dag_run_id = dag_run_id
        self._user = user
        self.id = self.is_now("queued")

    def is_now(self, state: str | None, *tasks: TaskState) -> str:
        """Record the states of the run and its tasks. Returns the execution's id."""
        with self._database.begin() as connection:
            seen = RunState(self.dag_id, self.dag_run_id, state, user=self._user)
            return observations.observe(connection, seen, tasks)

    def task(self, task_id: str, state: str | None, *, try_number: int = 1, map_index: int = -1) -> None:
        """Record the state of a task instance."""
        self.is_now(None, TaskState(task_id, map_index, try_number, state))

    def agent(self, task_id: str, agent: str, state: str, node: str | None = None, **more: Any) -> None:
        """Record the state of an agent or of a node; it updates the record of the same try."""
        told = _AGENT | {"task_id": task_id, "agent": agent, "node": node, "state": state} | more
        place = Place(self.dag_id, self.dag_run_id, task_id, told["map_index"], told["try_number"], agent, told["type"])
        key = f"{self.id}/{task_id}/{place.map_index}/{place.try_number}/{agent}/{node}"
        names = ("node", "state", "model", "input_tokens", "output_tokens", "cost_usd", "latency_ms", "notice")
        row = traces.row(
            place, execution_id=self.id, id=str(uuid.uuid5(uuid.NAMESPACE_OID, key)), started_at=datetime.now(UTC),
            finished_at=None, trace_id=None, **{name: told[name] for name in names},
        )  # fmt: skip
        with self._database.begin() as connection:
            traces.write(connection, [row])
        self.tell("agent_update", **told)

    def say(self, task_id: str, agent: str, node: str, text: str, try_number: int = 1) -> None:
        """Append text that an agent's model generated."""
        self.tell("token", task_id=task_id, map_index=-1, try_number=try_number, agent=agent, node=node, text=text)

    def fault(self, task_id: str, agent: str, **more: Any) -> None:
        """Append an error of an agent."""
        self.tell("error", **(_ERROR | {"task_id": task_id, "agent": agent} | more))

    def tell(self, kind: Any, **payload: Any) -> None:
        """Append any event."""
        with self._database.begin() as connection:
            events.append(connection, self.id, [NewEvent(kind, payload)])

    def returns(self, result: Any, task_id: str | None = None, map_index: int = -1) -> None:
        """Record the result of an agent task."""
        with self._database.begin() as connection:
            results.record(connection, [TaskResult(self.id, result, task_id, map_index)])

    def explain(self, reason: str) -> None:
        """Record why the run failed, as the reconciler does after its end."""
        with self._database.begin() as connection:
            reasons.set_reason(connection, self.id, reason)

    def log(self) -> list[Event]:
        """All events that are stored."""
        with self._database.connect() as connection:
            return events.read_after(connection, self.id, 0, limit=100_000)

    def prune(self, up_to: int) -> None:
        """Delete the events up to and including this one."""
        with self._database.begin() as connection:
            connection.exec_driver_sql(
                "DELETE FROM visual_ai.workflow_events WHERE execution_id = %s AND seq <= %s", (self.id, up_to)
            )
            connection.exec_driver_sql(
                "UPDATE visual_ai.workflow_executions SET pruned_seq = %s WHERE id = %s", (up_to, self.id)
            )


_AGENT: dict[str, Any] = {
    "map_index": -1, "try_number": 1, "type": "vision", "model": None, "input_tokens": 0, "output_tokens": 0,
    "cost_usd": None, "latency_ms": None, "notice": None,
}  # fmt: skip
_ERROR: dict[str, Any] = {
    "map_index": -1, "try_number": 1, "model": None, "node": None, "category": "server", "exception_type": "Error",
    "message": "it broke", "action": "retry", "retry_in": None, "recovered": False,
    "occurred_at": "2026-11-22T10:00:00+00:00",
}  # fmt: skip
