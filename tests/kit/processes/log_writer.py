"""Writes to the event log like another process, and wakes the feeds through PostgreSQL or through Redis."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, create_engine

from backend.core.events import NewEvent
from backend.core.jsonable import dumps
from backend.core.states import TaskState
from backend.db.engine import run_in
from backend.db.runs import events, observations
from backend.db.runs.announcements import Announcer
from backend.db.runs.executions import RunState

P = ParamSpec("P")
T = TypeVar("T")


class LogWriter:
    """A context manager that many threads may use. With `check`, each connection is tested before it is used, which
    costs a query and avoids errors on dead connections."""

    def __init__(self, url: str, redis_url: str | None = None, *, check: bool = True) -> None:
        self.engine = create_engine(url, pool_size=10, pool_pre_ping=check, json_serializer=dumps)
        self.announcer = Announcer(redis_url) if redis_url else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.engine.dispose()
        if self.announcer is not None:
            self.announcer.close()

    def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a repository in a transaction of its own."""
        return run_in(self.engine, self.announcer, function, *args, **kwargs)

    def observe(self, run: RunState, *tasks: TaskState) -> str:
        """Record the state of a run. Returns the execution's id."""
        return str(self.run(observations.observe, run, tasks))

    def say(self, execution_id: str, *texts: str) -> int:
        """Append a token for each text in one transaction. Returns the last `seq`."""
        return self.run(events.append, execution_id, [NewEvent("token", {"text": text}) for text in texts])
