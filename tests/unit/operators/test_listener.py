"""Airflow's listener can be switched off; the reconciler then finds what it would have told."""

from types import SimpleNamespace
from typing import Any

import pytest
import visual_ai_plugin as plugin

from backend.core import settings
from backend.services.recording import listener


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[listener.Notice]:
    """What is given to be recorded."""
    found: list[listener.Notice] = []
    monkeypatch.setattr(listener.Notices, "put", lambda _, notice: found.append(notice))
    monkeypatch.setattr(listener.Notices, "flush", lambda *_: True)
    return found


@pytest.mark.parametrize(("value", "told"), [("true", 3), ("false", 0)])
def test_switching_it_off(monkeypatch: pytest.MonkeyPatch, put: list[listener.Notice], value: str, told: int) -> None:
    monkeypatch.setenv("VISUAL_AI_LISTENER", value)
    monkeypatch.setattr(plugin, "_task_states", lambda _: ())
    settings.get_settings.cache_clear()
    plugin._notices.cache_clear()
    run: Any = SimpleNamespace(
        dag_id="dag", run_id="run", state="running", run_type="manual", conf={}, queued_at=None, start_date=None,
        end_date=None, triggering_user_name=None,
    )  # fmt: skip
    task = SimpleNamespace(
        dag_id="dag", run_id="run", task_id="task", map_index=-1, try_number=1, start_date=None, dag_run=run
    )
    try:
        listener = plugin.TimelineListener()
        listener.on_dag_run_running(run, "")
        listener.on_task_instance_running(None, task)
        listener.on_task_instance_success(None, task)
    finally:
        settings.get_settings.cache_clear()
        plugin._notices.cache_clear()
    assert len(put) == told
