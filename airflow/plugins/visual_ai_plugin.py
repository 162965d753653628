"""Airflow's plugin: a listener that records states of runs and tasks, and links from tasks to their run's page.

Airflow calls the listener for runs in the scheduler and for tasks in each task's own process. The listener passes
notices to a background thread (`backend.services.recording.listener`), so the scheduler is never delayed; a task's
process waits briefly at its end, because the thread ends with it. The reconciler makes up for lost notices.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

from visual_ai_decorators import DecoratedLangGraphOperator
from visual_ai_operators import LangGraphOperator, MultiAgentOperator
from visual_ai_retries import failure_behind

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

    from backend.core.states import TaskState
    from backend.db.runs.executions import RunState
    from backend.services.recording.listener import Notices

log = logging.getLogger(__name__)

OPERATORS = (LangGraphOperator, MultiAgentOperator, DecoratedLangGraphOperator)
"""All operators that run agents."""

TASK_FLUSH_SECONDS = 5.0
"""How long a finished task waits for its notice to be written before its process exits."""


class TimelineListener:
    """Airflow's listener hooks. They never raise: recording must not fail a run."""

    @hookimpl
    def on_dag_run_running(self, dag_run: DagRun, msg: str) -> None:
        """A run has started or was restarted."""
        _notice_run(dag_run)

    @hookimpl
    def on_dag_run_success(self, dag_run: DagRun, msg: str) -> None:
        """A run has succeeded."""
        _notice_run(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: DagRun, msg: str) -> None:
        """A run has failed."""
        _notice_run(dag_run)

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """A try has started, in its own process."""
        _notice_task(task_instance, "running")

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """A try has succeeded."""
        _notice_task(task_instance, "success", finished=True)

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """A try was skipped."""
        _notice_task(task_instance, "skipped", finished=True)

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """A try has failed; another may follow."""
        state = str(getattr(task_instance.state, "value", task_instance.state) or "failed")
        if state not in ("failed", "up_for_retry"):
            state = "failed"
        if isinstance(error, BaseException):
            error = failure_behind(getattr(task_instance, "task", None), error)
        _notice_task(task_instance, state, error=error if isinstance(error, BaseException) else None, finished=True)


class TimelineLink(BaseOperatorLink):
    """A button on agent tasks that opens the run's status page, also while the run is in progress."""

    operators: ClassVar[list[type[BaseOperator]]] = [*OPERATORS]

    @property
    def name(self) -> str:
        """The button's label."""
        return "Workflow status"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address of the run's page."""
        from backend.core.settings import get_settings

        place = f"{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}"
        return f"{get_settings().public_url.rstrip('/')}/workflow-status/{place}"


class TraceLink(BaseOperatorLink):
    """A button on agent tasks that opens their trace, if there is one."""

    operators: ClassVar[list[type[BaseOperator]]] = [*OPERATORS]

    @property
    def name(self) -> str:
        """The button's label."""
        return "Agent trace"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The trace's address from the task's result, or its future address while there is no result yet.

        Airflow shows no link if it is empty.
        """
        import json

        from airflow.models.taskinstance import TaskInstance
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        place = (
            TaskInstance.dag_id == ti_key.dag_id,
            TaskInstance.run_id == ti_key.run_id,
            TaskInstance.task_id == ti_key.task_id,
            TaskInstance.map_index == ti_key.map_index,
        )
        with create_session() as session:
            found = session.execute(
                XComModel.get_many(
                    key="return_value",
                    run_id=ti_key.run_id,
                    dag_ids=ti_key.dag_id,
                    task_ids=ti_key.task_id,
                    map_indexes=ti_key.map_index,
                    limit=1,
                ).with_only_columns(XComModel.value)
            ).scalar()
            state = session.execute(select(TaskInstance.state).where(*place)).scalar()
        try:
            result = json.loads(found) if isinstance(found, str) else found
        except ValueError:
            return ""
        if isinstance(result, dict):
            return str(result.get("trace_url") or "")
        return _trace_url(ti_key) if state in _TRACED_STATES else ""


class VisualAIPlugin(AirflowPlugin):
    """Registers the listener and the links."""

    name = "visual_ai"
    listeners = [TimelineListener()]
    operator_extra_links = [TimelineLink(), TraceLink()]


# The states in which a task without a result has started.
_TRACED_STATES = ("running", "deferred", "up_for_retry", "up_for_reschedule", "restarting", "failed")


def _trace_url(ti_key: TaskInstanceKey) -> str:
    from backend.core.settings import get_settings
    from backend.db.runs.threads import thread_of
    from backend.observation.tracing.ids import trace_id_of, trace_url_of

    settings = get_settings()
    thread = thread_of(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
    return trace_url_of(settings, trace_id_of(settings, thread)) or ""


@lru_cache(maxsize=1)
def _notices() -> Notices | None:
    """The queue of notices; None if the listener is switched off."""
    from backend.core.settings import get_settings
    from backend.services.recording.listener import Notices

    settings = get_settings()
    if not settings.listener:
        return None
    return Notices(settings.database_url, settings.redis_address)


def _notice_run(dag_run: DagRun) -> None:
    try:
        from backend.core.scheduling.dag_ids import is_schedule_dag
        from backend.services.recording.listener import Notice

        if is_schedule_dag(dag_run.dag_id) or (notices := _notices()) is None:
            return
        tasks = _task_states(dag_run)
        notices.put(Notice(_run_state(dag_run, len(tasks)), tasks))
    except Exception:
        log.warning("run %s could not be recorded", dag_run.run_id, exc_info=True)


def _notice_task(task_instance: Any, state: str, *, error: BaseException | None = None, finished: bool = False) -> None:
    try:
        from backend.core.scheduling.dag_ids import is_schedule_dag
        from backend.core.states import TaskState
        from backend.db.runs.executions import RunState
        from backend.services.recording.listener import Notice

        if is_schedule_dag(task_instance.dag_id) or (notices := _notices()) is None:
            return
        started = task_instance.start_date
        ended = getattr(task_instance, "end_date", None) if finished else None
        task = TaskState(
            task_id=task_instance.task_id,
            map_index=-1 if task_instance.map_index is None else task_instance.map_index,
            try_number=task_instance.try_number,
            state=state,
            started_at=started,
            finished_at=ended,
            duration=(ended - started).total_seconds() if started and ended else None,
        )
        server = getattr(task_instance, "_ti_context_from_server", None)
        dag_run = server.dag_run if server is not None else task_instance.dag_run
        run = RunState(
            dag_id=task_instance.dag_id,
            dag_run_id=task_instance.run_id,
            state=None,
            run_type=_value(dag_run.run_type),
            conf=dag_run.conf or {},
            started_at=dag_run.start_date,
        )
        action = "task_retry" if state == "up_for_retry" else "fail"
        if error is not None:
            from visual_ai_tasks import hide_what_airflow_masks

            hide_what_airflow_masks()
        notices.put(Notice(run, (task,), error, action))
        if finished and not notices.flush(TASK_FLUSH_SECONDS):
            log.warning("the end of task %s was not recorded in time", task_instance.task_id)
    except Exception:
        log.warning("task %s could not be recorded", task_instance.task_id, exc_info=True)


def _run_state(dag_run: DagRun, tasks_total: int) -> RunState:
    from backend.db.runs.executions import RunState

    return RunState(
        dag_id=dag_run.dag_id,
        dag_run_id=dag_run.run_id,
        state=str(_value(dag_run.state)),
        run_type=_value(dag_run.run_type),
        conf=dag_run.conf or {},
        queued_at=dag_run.queued_at,
        started_at=dag_run.start_date,
        finished_at=dag_run.end_date,
        tasks_total=tasks_total,
        user=dag_run.triggering_user_name,
    )


def _task_states(dag_run: DagRun) -> tuple[TaskState, ...]:
    """The states of the run's task instances as seen by the scheduler's own transaction."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    from backend.core.states import TaskState

    session = object_session(dag_run)
    if session is None:
        return ()
    rows = session.execute(
        select(
            TaskInstance.task_id,
            TaskInstance.map_index,
            TaskInstance.try_number,
            TaskInstance.state,
            TaskInstance.start_date,
            TaskInstance.end_date,
            TaskInstance.duration,
        ).where(TaskInstance.dag_id == dag_run.dag_id, TaskInstance.run_id == dag_run.run_id)
    )
    return tuple(TaskState(row[0], row[1], row[2], _value(row[3]), row[4], row[5], row[6]) for row in rows)


def _value(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))
