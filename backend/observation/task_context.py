"""The task that agents run in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.core.budget import Budget, parse_budget
from backend.db.runs import threads
from backend.db.runs.executions import SYSTEM_KEY, UPLOADS_KEY, RunState
from backend.db.runs.traces import Place


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The try of a task instance in which agents run, and its run's `conf`."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    try_number: int
    conf: Mapping[str, Any]
    run_type: str | None = None
    instance: str | None = None
    """Airflow's id of the task instance."""

    @property
    def thread_id(self) -> str:
        """The task instance's thread, the same for all of its tries."""
        return threads.thread_of(self.dag_id, self.dag_run_id, self.task_id, self.map_index)

    @property
    def run_input(self) -> dict[str, Any]:
        """The run's input, without the key that belongs to the system."""
        return {key: value for key, value in self.conf.items() if key != SYSTEM_KEY}

    @property
    def run_model(self) -> str | None:
        """The model that the trigger requested, for agents whose task names none."""
        system = self.conf.get(SYSTEM_KEY)
        model = system.get("model") if isinstance(system, Mapping) else None
        return model if isinstance(model, str) else None

    @property
    def run_budget(self) -> Budget | None:
        """The budget of the whole run, if the trigger set one. Raises `InputError` if it is invalid."""
        system = self.conf.get(SYSTEM_KEY)
        budget = system.get("budget") if isinstance(system, Mapping) else None
        return parse_budget(budget, field=f"{SYSTEM_KEY}.budget")

    @property
    def uploads(self) -> frozenset[str]:
        """The references that stand for pictures which the run was given as `data:` URLs."""
        system = self.conf.get(SYSTEM_KEY)
        uploads = system.get(UPLOADS_KEY) if isinstance(system, Mapping) else None
        return frozenset(one for one in uploads if isinstance(one, str)) if isinstance(uploads, list) else frozenset()

    def place(self) -> Place:
        """Where the records of this try belong."""
        return Place(self.dag_id, self.dag_run_id, self.task_id, self.map_index, self.try_number)

    def run_state(self) -> RunState:
        """The run as far as the task knows it."""
        return RunState(self.dag_id, self.dag_run_id, None, self.run_type, self.conf)
