"""Callbacks that notify a user's webhooks: `on_failure_callback=VisualAINotifier(…)` of a task or a DAG.

Importing this module is cheap: the database driver is only loaded when there is something to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from visual_ai_retries import failure_behind

if TYPE_CHECKING:
    from airflow.sdk import Context

    from backend.db.runs.executions import RunState
    from backend.services.notifications.alerts import Alert

__all__ = ["VisualAINotifier"]


class VisualAINotifier(BaseNotifier):
    """Queues an alert, which the backend signs and delivers to webhooks, with retries.

    For `on_failure_callback`, `on_retry_callback` and the other callbacks of tasks and DAGs, and for deadline alerts.
    The alert describes the run and its error without further arguments.

    :param message: the alert's text; by default a sentence about what happened. Templated.
    :param user_id: the user whose notification targets get the alert; by default the user that the run is for. A
        scheduled run is for nobody, and needs this argument. Templated.
    :param target: the name of the only target to notify, whatever events it has subscribed to; by default all of the
        user's targets that have subscribed to `alert`. Templated.
    """

    template_fields: Sequence[str] = ("message", "user_id", "target")

    def __init__(
        self,
        message: str | None = None,
        *,
        user_id: str | None = None,
        target: str | None = None,
        context: Context | None = None,
    ) -> None:
        for name, value in (("message", message), ("user_id", user_id), ("target", target)):
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise ValueError(f"{name}: has to be a text that is not empty")
        self.message = message
        self.user_id = user_id
        self.target = target
        super().__init__(context)

    def __call__(self, *args: Any) -> None:
        """Airflow calls this with the context."""
        # Airflow renders templates in place and keeps the notifier, so the next run would get this one's texts.
        BaseNotifier.__call__(copy(self), *args)

    def notify(self, context: Context) -> None:
        """Queue the alert. Raises if the database stays unavailable, which Airflow logs."""
        from backend.core.settings import get_settings
        from backend.services.notifications.alerts import queue

        alert = self._alert(context)
        if queue(get_settings().database_url, alert):
            return
        whose = f"the user {alert.user_id!r}" if alert.user_id else "the run's user, if it has one,"
        self.log.warning(
            f"No notifications: {whose} has no target for alerts (PUT /users/me/preferences). "
            "For a run without a user, pass user_id=… to VisualAINotifier."
        )

    async def async_notify(self, context: Context) -> None:
        """Queue the alert in the triggerer, where deadline alerts run."""
        await asyncio.to_thread(self.notify, context)

    def _alert(self, context: Context) -> Alert:
        from backend.services.notifications.alerts import Alert

        given: Mapping[str, Any] = context
        run = _run_state(given)
        reason = given.get("reason") or ("deadline_missed" if "deadline" in given else None)
        # A DAG's callback also gets the last task instance, which the alert is not about.
        task = given.get("ti") if reason is None else None
        state = _value(getattr(task, "state", None))
        error = given.get("exception") if task is not None else None
        failed = error is not None or state in ("failed", "up_for_retry") or reason not in (None, "success")
        place = {"task_id": None, "map_index": None, "try_number": None, "reason": reason}
        if task is not None:
            index = getattr(task, "map_index", None)
            place |= {
                "task_id": task.task_id,
                "map_index": -1 if index is None else index,
                "try_number": task.try_number,
            }
        return Alert(
            run=run,
            message=self.message or _sentence(run, place, failed=failed),
            user_id=self.user_id,
            target=self.target,
            place=place,
            failed=failed,
            error=failure_behind(given.get("task"), error) if isinstance(error, BaseException) else None,
        )


def _run_state(context: Mapping[str, Any]) -> RunState:
    """The run in a context, where it is an object for a task or a DAG, a dict for a deadline, or missing."""
    from backend.db.runs.executions import RunState

    found = context.get("dag_run")
    run = found if isinstance(found, Mapping) else {name: getattr(found, name, None) for name in _RUN_FIELDS}
    dag = context.get("dag")
    started = run.get("start_date")
    return RunState(
        dag_id=run.get("dag_id") or dag.dag_id,  # type: ignore[union-attr]  # a context has at least one of the two
        dag_run_id=run.get("run_id") or run.get("dag_run_id") or context["run_id"],
        state=None,
        run_type=_value(run.get("run_type")),
        conf=run.get("conf") or {},
        started_at=datetime.fromisoformat(started) if isinstance(started, str) else started,
        user=run.get("triggering_user_name"),
    )


_RUN_FIELDS = ("dag_id", "run_id", "run_type", "conf", "start_date", "triggering_user_name")


def _sentence(run: RunState, place: Mapping[str, Any], *, failed: bool) -> str:
    whole = f"{run.dag_run_id} of {run.dag_id}"
    if place["task_id"] is None:
        return f"Run {whole}: {(place['reason'] or 'alert').replace('_', ' ')}"
    task = f"{place['task_id']}[{place['map_index']}]" if place["map_index"] >= 0 else place["task_id"]
    return f"Task {task} of run {whole}: {'failed' if failed else 'alert'} in try {place['try_number']}"


def _value(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
