"""Restores records of agents and nodes that a task could not write, from its checkpoints and from Airflow's XComs.

The reconciler calls this some seconds after runs have ended. It looks at each ended run once, with three queries. Only
a run that lacks something costs Airflow a call for each task.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from backend.agents.registry import AGENTS
from backend.clients.airflow import AirflowClient, AirflowRefused
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import lost_records
from backend.db.runs.lost_records import Instance, Lost
from backend.db.runs.traces import Place

log = logging.getLogger(__name__)

AFTER = 15.0
"""Seconds after the last change of an ended run. A task reports its end only after its records are written or given
up."""

WITHIN = 3600.0
"""Seconds after a run's end within which it is looked at."""

OPERATORS = frozenset({"LangGraphOperator", "MultiAgentOperator", "@task.langgraph"})
"""Airflow's names of the operators that run agents."""

_REMEMBERED = 10_000


class RecordRestorer:
    """Restores lost records."""

    def __init__(self, airflow: AirflowClient, database: Database) -> None:
        self._airflow = airflow
        self._database = database
        self._since = datetime.now(UTC) - timedelta(seconds=WITHIN)
        self._seen: OrderedDict[tuple[str, str], set[Instance]] = OrderedDict()
        """Instances of agents' tasks, by run: where nothing at all was written, nothing else tells of agents."""
        self.restored = {"agent": 0, "node": 0}
        """Records restored by this process."""

    def saw(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Task instances as Airflow lists them."""
        for task in tasks:
            if task.get("state") == "success" and OPERATORS & {task.get("operator"), task.get("operator_name")}:
                key = (task["dag_id"], task["dag_run_id"])
                self._seen.setdefault(key, set()).add((task["task_id"], task["map_index"]))
                if len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)

    async def restore(self) -> int:
        """Look at the runs that ended since the last call; returns how many records were restored.

        Raises `AirflowError` and `SQLAlchemyError`; a retry helps.
        """
        restored = 0
        while True:
            runs = await self._database.run(lost_records.find, since=self._since, after=AFTER, within=WITHIN)
            for run in runs:
                try:
                    restored += await self._restore(run)
                except (OperationalError, InterfaceError):
                    raise  # a fault of the database, not of this run
                except DBAPIError:
                    log.exception(
                        "the lost records of run %s of %s can't be restored", run["dag_run_id"], run["dag_id"]
                    )
                self._since = run["updated_at"]
            if len(runs) < lost_records.LIMIT:
                return restored

    async def _restore(self, run: Row) -> int:
        lost = await self._database.run(lost_records.read, run)
        seen = self._seen.get((run["dag_id"], run["dag_run_id"]), set())
        agents = 0
        for instance in lost.incomplete(sorted(seen)):
            agents += await self._restore_agents(run, lost, instance)
        if lost.nodes:
            await self._database.run(lost_records.write_nodes, run["id"], [_typed(one) for one in lost.nodes])
        self._seen.pop((run["dag_id"], run["dag_run_id"]), None)
        self.restored["agent"] += agents
        self.restored["node"] += len(lost.nodes)
        if agents or lost.nodes:
            log.warning(
                "restored the lost records of %s agents and %s nodes of run %s of %s",
                agents,
                len(lost.nodes),
                run["dag_run_id"],
                run["dag_id"],
            )
        return agents + len(lost.nodes)

    async def _restore_agents(self, run: Row, lost: Lost, instance: Instance) -> int:
        """Restore the agents of a task instance from what it returned; without that nothing is known of them."""
        task = lost.tasks[instance]
        if task["state"] != "success" or task["batch"]:
            return 0
        try:
            result = await self._airflow.xcom(run["dag_id"], run["dag_run_id"], *instance)
        except AirflowRefused:  # it pushed nothing, or the run is deleted
            return 0
        found = _agents_in(result)
        for name, returned in found.items():
            kinds = [row["agent_type"] for row in lost.agents if row["agent_name"] == name]
            kind = kinds[0] if kinds else _kind(name)
            place = Place(run["dag_id"], run["dag_run_id"], *instance, task["try_number"], name, kind)
            await self._database.run(lost_records.write_agent, run["id"], place, task, returned, lost=lost)
        return len(found)


def _agents_in(result: Any) -> dict[str, Mapping[str, Any]]:
    """The agents in what a task returned: `LangGraphOperator` has one, `MultiAgentOperator` names several."""
    if not isinstance(result, dict) or not isinstance(result.get("usage"), dict):
        return {}
    agents = result.get("agents")
    if isinstance(agents, dict):
        results = result.get("results")
        outputs = results if isinstance(results, dict) else {}
        more = {"trace_url": result.get("trace_url")}
        return {
            name: {**more, **entry, "output": outputs.get(name)}
            for name, entry in agents.items()
            if isinstance(entry, dict)
        }
    name = result.get("agent")
    return {name: {**result, "state": "success"}} if isinstance(name, str) and "output" in result else {}


def _kind(name: str) -> str:
    return name if name in AGENTS else "graph"


def _typed(one: lost_records.LostNode) -> lost_records.LostNode:
    place = one.place
    return one if place.agent_type else replace(one, place=replace(place, agent_type=_kind(place.agent or "")))
