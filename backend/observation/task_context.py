"""The task that agents run in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backend.core.budget import Budget, parse_budget
from backend.core.run_envelope import FORK, SHARED_UPLOADS, SYSTEM_KEY, UPLOADS, Fork
from backend.core.turns import TURN
from backend.db.engine import Database
from backend.db.run_keys import trigger_values
from backend.db.runs import threads
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place
from backend.pictures.inline import SCHEME
from backend.pictures.reader import UploadReader


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
    user: str | None = None
    """Who started the run, as far as Airflow knows."""
    team: str | None = None
    """The team of the DAG, where Airflow has teams."""
    system: Mapping[str, Any] = field(default_factory=dict)
    """What the trigger added to the run's conf."""

    async def verified(self, database: Database) -> Self:
        """The same task, knowing what the trigger added to its run's conf.

        While the database is away nothing in the conf can be verified. Only its model and budget count then: whoever
        starts a run may choose them anyway. A fork can't begin then: raises `ConnectionError` (a retry helps).
        """
        if SYSTEM_KEY not in self.conf:
            return self
        try:
            system = await database.run(self.verified_values)
        except OperationalError as error:
            found = self.conf.get(SYSTEM_KEY)
            found = found if isinstance(found, Mapping) else {}
            if FORK in found or TURN in found:
                raise ConnectionError("the database is away, and with it the state to go on from") from error
            system = {name: found[name] for name in ("model", "budget") if name in found}
        return replace(self, system=system)

    def verified_values(self, connection: Connection) -> dict[str, Any]:
        """What the trigger added to the run's conf."""
        return trigger_values(connection, self.dag_id, self.dag_run_id, self.conf)

    @property
    def thread_id(self) -> str:
        """The task instance's thread, the same for all of its tries."""
        return threads.thread_of(self.dag_id, self.dag_run_id, self.task_id, self.map_index)

    @property
    def run_input(self) -> dict[str, Any]:
        """The run's input, without the key that belongs to the system."""
        return {key: value for key, value in self.conf.items() if key != SYSTEM_KEY}

    @property
    def run_user(self) -> str | None:
        """Whose run it is, if it is somebody's."""
        user = self.system.get("user_id")
        return user if isinstance(user, str) else self.user

    @property
    def run_model(self) -> str | None:
        """The model that the trigger requested, for agents whose task names none."""
        model = self.system.get("model")
        return model if isinstance(model, str) else None

    @property
    def run_budget(self) -> Budget | None:
        """The budget of the whole run, if the trigger set one. Raises `InputError` if it is invalid."""
        return parse_budget(self.system.get("budget"), field=f"{SYSTEM_KEY}.budget")

    @property
    def fork(self) -> Fork | None:
        """From what the run was forked, if it was."""
        return Fork.of(self.system.get(FORK))

    @property
    def uploads(self) -> frozenset[str]:
        """The references that stand for pictures which the run was given as `data:` URLs."""
        uploads = self.system.get(UPLOADS)
        return frozenset(one for one in uploads if isinstance(one, str)) if isinstance(uploads, list) else frozenset()

    @property
    def upload_reader(self) -> UploadReader:
        """The run as a reader of uploads."""
        users = (self.system.get("user_id"), self.system.get("triggered_by"), self.user)
        shared = self.system.get(SHARED_UPLOADS)
        ids = [str(one).removeprefix(SCHEME) for one in shared] if isinstance(shared, list) else []
        unattended = self.run_type not in (None, "manual")
        return UploadReader(frozenset(map(str, filter(None, users))), unattended, frozenset(ids))

    def place(self) -> Place:
        """Where the records of this try belong."""
        return Place(self.dag_id, self.dag_run_id, self.task_id, self.map_index, self.try_number)

    def run_state(self) -> RunState:
        """The run as far as the task knows it."""
        return RunState(self.dag_id, self.dag_run_id, None, self.run_type, self.conf, user=self.user)
