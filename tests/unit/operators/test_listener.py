"""Airflow's listener records the ends of tries before their processes exit, and can be switched off."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import visual_ai_plugin as plugin
from airflow.sdk.exceptions import AirflowFailException

from backend.core import settings
from backend.core.workflow_error_handler import AgentFailure, Classified
from backend.db.address import plain_url
from backend.runtime.error_transfer import pack
from backend.services.recording import listener
from visual_ai_operators import LangGraphOperator

RUN: Any = SimpleNamespace(
    dag_id="dag", run_id="run", state="running", run_type="manual", conf={}, queued_at=None, start_date=None,
    end_date=None, triggering_user_name=None,
)  # fmt: skip


def make_task(state: str) -> Any:
    return SimpleNamespace(
        dag_id="dag",
        run_id="run",
        task_id="task",
        map_index=-1,
        try_number=1,
        state=state,
        start_date=None,
        dag_run=RUN,
    )


@pytest.fixture(autouse=True)
def _fresh_settings() -> Iterator[None]:
    """The settings of this test's environment, also for the listener."""
    settings.get_settings.cache_clear()
    plugin._notices.cache_clear()
    yield
    settings.get_settings.cache_clear()
    plugin._notices.cache_clear()


@pytest.mark.parametrize(("value", "recorded"), [("true", 3), ("false", 0)])
def test_switching_the_listener_off(monkeypatch: pytest.MonkeyPatch, value: str, recorded: int) -> None:
    put: list[listener.Notice] = []
    monkeypatch.setattr(listener.Notices, "put", lambda _, notice: put.append(notice))
    monkeypatch.setattr(listener.Notices, "flush", lambda *_: True)
    monkeypatch.setattr(plugin, "_task_states", lambda _: ())
    monkeypatch.setenv("VISUAL_AI_LISTENER", value)
    hooks = plugin.TimelineListener()
    hooks.on_dag_run_running(RUN, "")
    hooks.on_task_instance_running(None, make_task("running"))
    hooks.on_task_instance_success(None, make_task("success"))
    assert len(put) == recorded


@pytest.mark.parametrize(
    ("state", "hook"),
    [
        ("success", lambda hooks, task: hooks.on_task_instance_success(None, task)),
        ("skipped", lambda hooks, task: hooks.on_task_instance_skipped(None, task)),
        ("failed", lambda hooks, task: hooks.on_task_instance_failed(None, task, ValueError("no such picture"))),
    ],
)
def test_the_end_of_a_try_is_recorded_before_its_process_exits(
    monkeypatch: pytest.MonkeyPatch, database_url: str, state: str, hook: Callable[[Any, Any], None]
) -> None:
    """The process exits as soon as the hook returns, and with it the thread that writes."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", database_url)
    with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
        hook(plugin.TimelineListener(), make_task(state))
        found = connection.execute(
            "SELECT payload->>'state' FROM visual_ai.workflow_events WHERE event_type = %s", ["task_update"]
        )
        assert found.fetchall() == [(state,)]
    notices = plugin._notices()
    assert notices is not None
    assert notices.flush(10)


@pytest.mark.parametrize("recorded", [True, False])
def test_only_an_error_without_a_row_is_recorded(
    monkeypatch: pytest.MonkeyPatch, database_url: str, recorded: bool
) -> None:
    """Airflow gets the agents' original error; whether it has its row is in the failure that the operator keeps."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", database_url)
    known = Classified("quota", "elsewhere.QuotaError", "no credit", True, ())
    failure = AgentFailure(ValueError("no credit"), known, recorded=recorded)
    operator = LangGraphOperator(task_id="task", agent_config={"type": "text"})
    with pytest.raises(AirflowFailException) as raised:
        operator.resume({}, {"result": None, "error": pack(failure), "execution_id": None})
    task = make_task("failed")
    task.task = operator
    with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
        plugin.TimelineListener().on_task_instance_failed(None, task, raised.value)
        rows = connection.execute("SELECT category, exception_type, message FROM visual_ai.workflow_errors").fetchall()
    assert rows == ([] if recorded else [("quota", "elsewhere.QuotaError", "no credit")])


def test_a_database_that_does_not_answer_delays_the_end_of_a_try_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float] = []

    def timed_out(_: listener.Notices, seconds: float) -> bool:
        waited.append(seconds)
        return False

    monkeypatch.setattr(listener.Notices, "put", lambda *_: None)
    monkeypatch.setattr(listener.Notices, "flush", timed_out)
    plugin.TimelineListener().on_task_instance_success(None, make_task("success"))
    assert waited == [plugin.TASK_FLUSH_SECONDS]
    assert "task" in caplog.text
