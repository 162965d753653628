"""What the process that forks tasks does once, so that no task has to do it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine.interfaces import CacheStats

from backend.core.settings import Settings, get_settings
from backend.core.states import TaskState
from backend.db.engine import task_engine
from backend.db.rehearsal import rehearse
from backend.db.runs.executions import RunState
from backend.runtime.runner import TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from backend.runtime.worker import AgentTask
from backend.services.recording.listener import Notice, record

TASK = TaskContext("dag", "run", "work", -1, 1, {"text": "A text."}, "manual")
STARTED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def engine(pg: Any, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The engine of tasks, of an empty database, and as if this process had just started."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    task_engine.cache_clear()
    engine = task_engine(pg.worker_url)
    yield engine
    engine.dispose()
    task_engine.cache_clear()
    get_settings.cache_clear()


def tell(engine: Engine, state: str) -> None:
    """What the listener does when the task begins and ends."""
    now = datetime.now(UTC)
    seen = TaskState("work", -1, 1, state, now, now if state == "success" else None, None)
    run = RunState("dag", "run", None, "manual", dict(TASK.conf), started_at=STARTED)
    with engine.begin() as connection:
        record(connection, Notice(run, (seen,)))


def test_a_task_has_nothing_left_to_compile(engine: Engine) -> None:
    rehearse()
    compiled: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:
        if context.cache_hit is CacheStats.CACHE_MISS:
            compiled.append(statement)

    tell(engine, "running")
    settings = Settings(_env_file=None)
    result = AgentTask(settings, TASK).run(lambda runner: run_single(runner, parse_agent({"type": "text"}, None)))
    tell(engine, "success")
    assert result["output"]
    assert compiled == []


def test_nothing_is_left_behind(engine: Engine) -> None:
    rehearse()
    assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]  # of a QueuePool
    with engine.connect() as connection:
        for table in ("workflow_executions", "workflow_events", "workflow_tasks", "workflow_threads", "agent_traces"):
            assert connection.execute(text(f"SELECT count(*) FROM visual_ai.{table}")).scalar() == 0


def test_an_unavailable_database_stops_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", "postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    get_settings.cache_clear()
    rehearse()
    assert "the database is unavailable" in caplog.text
    assert "secret" not in caplog.text
