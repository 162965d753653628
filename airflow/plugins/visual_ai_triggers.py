"""The trigger in which the agents of deferrable tasks run.

Cheap to import: what agents need is loaded when the first one runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.log import mask_secret
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from backend.core.workflow_error_handler import as_failure
from visual_ai_deferral import TRIGGER
from visual_ai_tasks import credentials_of, hide_what_airflow_masks, missing_connection, task_context, work_of

if TYPE_CHECKING:
    from airflow.sdk import Context
    from langgraph.types import Durability

    from backend.models.resolve import ModelCredentials
    from backend.runtime.runner import TaskContext

__all__ = ["AgentTrigger"]

PUSHES = 3
"""How many results are pushed concurrently."""

_warm = False
"""Whether this process has made its first request to Airflow."""

_loaded = False
"""Whether this process has imported what agents need."""

_masked: set[str] = set()
"""The keys that this process's logs mask already. Every message to Airflow costs it a round of database queries."""


class AgentTrigger(BaseTrigger):
    """Runs a task's agents in the triggerer.

    A success ends the task here, unless there is something left for a worker to do. An error is handed over to a worker
    and raised there, so that the task's retries and retry policy apply. When the trigger is cancelled, the model calls
    in flight are dropped; another triggerer that takes over goes on from the last checkpoint.

    :param operator: the name of the task's operator.
    :param arguments: the operator's arguments as JSON. They are rendered here if the task starts here.
    :param ends_task: whether a success ends the task here.
    :param pushes_xcom: whether the result is pushed as an XCom.
    :param conf: the run's conf with its parameters, if the task started in a worker.
    :param run_type: the run's type, if the task started in a worker.
    :param user: who started the run in that case, as far as Airflow knows.
    :param llm_conn_id: the connection with the models' key. It is read when the agents run.
    :param budget: the task's budget.
    :param durability: when the agents' states are written, as LangGraph defines it; None: never.
    :param questions: who may answer the agents' questions, and until when.
    :param place: the task instance's `dag_id`, `run_id`, `task_id`, `map_index`, `try_number` and `id`, if the task
        started in a worker. Needed where no triggerer sets `task_instance`: `airflow dags test` runs a trigger in its
        own process, and always resumes the task with the trigger's event.
    """

    def __init__(
        self,
        operator: str,
        arguments: Mapping[str, Any],
        ends_task: bool = True,
        pushes_xcom: bool = True,
        conf: Mapping[str, Any] | None = None,
        run_type: str | None = None,
        user: str | None = None,
        llm_conn_id: str | None = None,
        budget: Mapping[str, Any] | None = None,
        durability: Durability | None = "async",
        questions: Mapping[str, Any] | None = None,
        place: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.operator = operator
        self.arguments = dict(arguments)
        self.ends_task = ends_task
        self.pushes_xcom = pushes_xcom
        self.conf = conf
        self.run_type = run_type
        self.user = user
        self.llm_conn_id = llm_conn_id
        self.budget = budget
        self.durability = durability
        self.questions = questions
        self.place = place
        self._context: Context | None = None
        self._hidden: list[str] = []  # must appear in no log and no event
        self._running: asyncio.Task[tuple[dict[str, Any], str | None]] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The trigger's class path and its arguments."""
        return TRIGGER, {
            "operator": self.operator,
            "arguments": self.arguments,
            "ends_task": self.ends_task,
            "pushes_xcom": self.pushes_xcom,
            "conf": self.conf,
            "run_type": self.run_type,
            "user": self.user,
            "llm_conn_id": self.llm_conn_id,
            "budget": self.budget,
            "durability": self.durability,
            "questions": self.questions,
            "place": self.place,
        }

    def render_template_fields(self, context: Context, jinja_env: jinja2.Environment | None = None) -> None:  # noqa: ARG002  # prescribed
        """Called for tasks that start here. Rendering is postponed to `run`, so that a worker can raise its errors."""
        self._context = context

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Run the agents and yield one event."""
        warming = asyncio.create_task(self._warm_up())
        if not _loaded:
            await asyncio.to_thread(_load)
        from backend.runtime.error_transfer import Cleaner, pack
        from backend.runtime.runner import AgentsWaiting

        self._running = asyncio.ensure_future(self._result())
        try:
            result, execution_id = await self._running
        except AgentsWaiting:
            # Only a worker can park a task.
            yield _for_worker(waits=True)
            return
        except Exception as error:
            failure = as_failure(error)
            self.log.warning("the agents failed: %s", type(failure.error).__name__)
            yield _for_worker(error=pack(failure, Cleaner(self._hidden)))
            return
        await warming
        if self._ends_here and (not self.pushes_xcom or await self._push(result)):
            yield TaskSuccessEvent()
        else:
            yield _for_worker(result=result, execution_id=execution_id)

    async def on_kill(self) -> None:
        """Drop the model calls, because somebody stopped the task."""
        await self._stop()

    async def cleanup(self) -> None:
        """Stop everything that is still running, whatever ended the trigger."""
        await self._stop()

    @property
    def _ends_here(self) -> bool:
        """Whether a success ends the task here. Without a triggerer it can't."""
        return self.ends_task and self.task_instance is not None

    async def _stop(self) -> None:
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _result(self) -> tuple[dict[str, Any], str | None]:
        from backend.core.asking.terms import parse_terms
        from backend.core.budget import parse_budget
        from backend.core.jsonable import to_jsonable
        from backend.core.settings import get_settings
        from backend.models.hidden_values import hidden_values, provider_keys
        from backend.runtime.triggerer import run_deferred

        task = self._task_context()
        arguments, conn_id, budget = self._rendered([self.arguments, self.llm_conn_id, self.budget])
        work = work_of(self.operator, arguments, conn_id)
        settings, credentials = get_settings(), await _credentials(conn_id)
        self._hidden = hidden_values(settings, credentials)
        hide_what_airflow_masks()
        for key in set(provider_keys(settings, credentials)) - _masked:
            mask_secret(key)
            _masked.add(key)
        result, execution_id = await run_deferred(
            settings,
            task,
            work,
            ends_here=self._ends_here,
            budget=parse_budget(budget),
            credentials=credentials,
            durability=self.durability,
            terms=parse_terms(self.questions),
        )
        return to_jsonable(result), execution_id

    async def _warm_up(self) -> None:
        """Make a request to Airflow while the first agent works: the triggerer's first one takes seconds."""
        global _warm
        if _warm or not self._ends_here or not self.pushes_xcom:
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
        """Push the result as a worker does, and return whether that succeeded.

        It isn't passed in the event, because Airflow 3.3 stores an event's XComs as their JSON text, past any XCom
        backend.
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
            self.log.warning("the result could not be pushed here; a worker will push it", exc_info=True)
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

        task: Any = self.task_instance or SimpleNamespace(**(self.place or {}))
        return TaskContext(
            dag_id=task.dag_id,
            dag_run_id=task.run_id,
            task_id=task.task_id,
            map_index=-1 if task.map_index is None else task.map_index,
            try_number=task.try_number,
            conf=self.conf or {},
            run_type=self.run_type,
            instance=str(task.id),
            user=self.user,
        )


@lru_cache(maxsize=1)
def _pushing(_loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    """Limits how many results are pushed concurrently.

    Airflow handles one message at a time, with a round of database queries for each. Behind hundreds of results,
    triggers that start or have finished would have to wait.
    """
    return asyncio.Semaphore(PUSHES)


async def _credentials(conn_id: str | None) -> ModelCredentials | None:
    if not conn_id:
        return None
    try:
        return credentials_of(await Connection.async_get(conn_id))
    except AirflowNotFoundException:
        raise missing_connection(conn_id) from None


def _for_worker(
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    execution_id: str | None = None,
    waits: bool = False,
) -> TriggerEvent:
    event = {"result": result, "error": error, "execution_id": execution_id, "waits": waits}
    return TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's


def _load() -> None:
    """Import what agents need. This takes seconds the first time, so it runs in a thread."""
    import backend.observation.tracing.client as tracing

    tracing.prepare()
    with suppress(ImportError):
        import langchain_openai  # noqa: F401
    global _loaded
    _loaded = True
