"""The trigger in which agents of deferrable tasks run. Light to import: what agents need is loaded when one runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.log import mask_secret
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from backend.core.workflow_error_handler import as_failure
from visual_ai_deferral import TRIGGER
from visual_ai_tasks import credentials_of, missing_connection, task_context, work_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from backend.models.resolve import ModelCredentials
    from backend.runtime.runner import TaskContext

__all__ = ["AgentTrigger"]

PUSHES = 3
"""So many results are pushed at once."""

_warm = False
"""Whether this process has asked Airflow something."""

_loaded = False
"""Whether this process has imported what agents need."""

_masked: set[str] = set()
"""Keys that this process's logs hide already. Each message to Airflow costs it a round through its database."""


class AgentTrigger(BaseTrigger):
    """Runs a task's agents in the triggerer.

    Success ends the task here, unless something is left for a worker to do. An error is handed to a worker, which
    raises it there, so that it meets the task's retries and retry policy. When the trigger is cancelled, the model
    calls in flight are dropped; another triggerer that takes it over goes on from the last checkpoint.

    :param operator: the name of the operator that the task is of.
    :param arguments: its arguments, as JSON: rendered already, or to be rendered here when the task starts here.
    :param ends_task: whether success ends the task here.
    :param pushes_xcom: whether the result is pushed.
    :param conf: the run's conf with its parameters, of a task that started in a worker.
    :param run_type: the run's type, as above.
    :param llm_conn_id: the connection with the models' key, which is looked up when the agents run.
    :param budget: what the task may use.
    """

    def __init__(
        self,
        operator: str,
        arguments: Mapping[str, Any],
        ends_task: bool = True,
        pushes_xcom: bool = True,
        conf: Mapping[str, Any] | None = None,
        run_type: str | None = None,
        llm_conn_id: str | None = None,
        budget: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.operator = operator
        self.arguments = dict(arguments)
        self.ends_task = ends_task
        self.pushes_xcom = pushes_xcom
        self.conf = conf
        self.run_type = run_type
        self.llm_conn_id = llm_conn_id
        self.budget = budget
        self._context: Context | None = None
        self._keys: list[str] = []  # may stand in no log and no event
        self._running: asyncio.Task[tuple[dict[str, Any], str | None]] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and its arguments."""
        return TRIGGER, {
            "operator": self.operator,
            "arguments": self.arguments,
            "ends_task": self.ends_task,
            "pushes_xcom": self.pushes_xcom,
            "conf": self.conf,
            "run_type": self.run_type,
            "llm_conn_id": self.llm_conn_id,
            "budget": self.budget,
        }

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:  # noqa: ARG002  # prescribed
        """Called for tasks that start here. Renders nothing yet: an error has to find its way to a worker."""
        self._context = context

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the agents and yield one event."""
        warming = asyncio.create_task(self._warm_up())
        if not _loaded:
            await asyncio.to_thread(_load)
        from backend.runtime.error_transfer import pack

        self._running = asyncio.ensure_future(self._result())
        try:
            result, execution_id = await self._running
        except Exception as error:
            failure = as_failure(error)
            self.log.warning("the agents failed: %s", type(failure.error).__name__)
            yield _for_worker(error=pack(failure, hide=self._keys))
            return
        await warming
        if self.ends_task and (not self.pushes_xcom or await self._push(result)):
            yield TaskSuccessEvent()
        else:
            yield _for_worker(result=result, execution_id=execution_id)

    async def on_kill(self) -> None:
        """Somebody stopped the task: drop the model calls."""
        await self._stop()

    async def cleanup(self) -> None:
        """The trigger ends, for whatever reason: nothing of it may go on."""
        await self._stop()

    async def _stop(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _result(self) -> tuple[dict[str, Any], str | None]:
        from backend.core.budget import parse_budget
        from backend.core.jsonable import to_jsonable
        from backend.core.settings import get_settings
        from backend.models.resolve import provider_keys
        from backend.runtime.triggerer import run_deferred

        task = self._task_context()
        arguments, conn_id, budget = self._rendered([self.arguments, self.llm_conn_id, self.budget])
        work = work_of(self.operator, arguments)
        settings, credentials = get_settings(), await _credentials(conn_id)
        self._keys = provider_keys(settings, credentials)
        for key in set(self._keys) - _masked:
            mask_secret(key)
            _masked.add(key)
        result, execution_id = await run_deferred(
            settings, task, work, ends_here=self.ends_task, budget=parse_budget(budget), credentials=credentials
        )
        return to_jsonable(result), execution_id

    async def _warm_up(self) -> None:
        """Ask Airflow something. The triggerer's first question takes seconds, as it makes an API of its own: let them
        pass while the first agent works."""
        global _warm
        if _warm or not self.pushes_xcom:
            return
        _warm = True
        instance: Any = self.task_instance
        with suppress(Exception):
            await asyncio.to_thread(
                XCom.get_one,
                key="return_value",
                dag_id=instance.dag_id,
                task_id=instance.task_id,
                run_id=instance.run_id,
            )

    async def _push(self, result: dict[str, Any]) -> bool:
        """Push the result as a worker does; says whether that went well.

        Not with the event: Airflow 3.3 stores an event's XComs as the text of their JSON, and no backend sees them.
        """
        instance: Any = self.task_instance
        task = self.task
        try:
            async with _pushing(asyncio.get_running_loop()):
                await asyncio.to_thread(
                    XCom.set,
                    key="return_value",
                    value=result,
                    dag_id=instance.dag_id,
                    task_id=instance.task_id,
                    run_id=instance.run_id,
                    map_index=-1 if instance.map_index is None else instance.map_index,
                    dag_result=bool(getattr(task, "returns_dag_result", False)),
                    _mapped_length=len(result) if task is not None and any(task.iter_mapped_dependants()) else None,
                )
        except Exception:
            self.log.warning("the result could not be pushed here; a worker does it", exc_info=True)
            return False
        return True

    def _rendered(self, value: list[Any]) -> list[Any]:
        if self._context is None:
            return value
        environment = self.get_template_env()
        environment.undefined = jinja2.StrictUndefined  # as in a worker
        rendered: list[Any] = self.render_template(value, self._context, environment, set())
        return rendered

    def _task_context(self) -> TaskContext:
        if self._context is not None:
            return task_context(self._context)
        from backend.runtime.runner import TaskContext

        task: Any = self.task_instance
        return TaskContext(
            dag_id=task.dag_id,
            dag_run_id=task.run_id,
            task_id=task.task_id,
            map_index=-1 if task.map_index is None else task.map_index,
            try_number=task.try_number,
            conf=self.conf or {},
            run_type=self.run_type,
            instance=str(task.id),
        )


@lru_cache(maxsize=1)
def _pushing(_loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    """Lets few results be pushed at once. Airflow takes one message after the other, with a round through its database
    for each: behind hundreds of results, triggers that begin or have ended would wait."""
    return asyncio.Semaphore(PUSHES)


async def _credentials(conn_id: str | None) -> ModelCredentials | None:
    if not conn_id:
        return None
    try:
        return credentials_of(await Connection.async_get(conn_id))
    except AirflowNotFoundException:
        raise missing_connection(conn_id) from None


def _for_worker(
    *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None, execution_id: str | None = None
) -> TriggerEvent:
    event = {"result": result, "error": error, "execution_id": execution_id}
    return TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's


def _load() -> None:
    """Import what agents need, which takes seconds for the first one: in a thread, so that nobody waits for it."""
    import backend.observation.tracing.client as tracing

    tracing.prepare()
    with suppress(ImportError):
        import langchain_openai  # noqa: F401
    global _loaded
    _loaded = True
