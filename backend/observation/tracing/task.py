"""One trace per task in Langfuse, across its tries and processes, and one per item of a batch."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from langchain_core.callbacks import BaseCallbackHandler
from sqlalchemy.exc import SQLAlchemyError

from backend.core.settings import Settings
from backend.core.workflow_error_handler import classify
from backend.db.engine import Database
from backend.db.runs import executions
from backend.observation.task_context import TaskContext
from backend.observation.tracing.agent import AgentTrace, harmless
from backend.observation.tracing.callbacks import TraceCalls
from backend.observation.tracing.client import SpanMaker, TraceClient, trace_client
from backend.observation.tracing.ids import is_traced, langfuse_name, session_of, trace_id_of, trace_url_of
from backend.observation.tracing.redaction import Known

log = logging.getLogger(__name__)

LOOK_UP_SECONDS = 2.0
"""How long the start of a trace waits for the database."""

_PROPAGATED = 190
"""The longest value that Langfuse propagates to all spans of a trace, in characters."""


class TaskTrace:
    """One try's part of a task's trace. Without Langfuse's keys, it only knows the trace's id. No method raises."""

    def __init__(self, settings: Settings, task: TaskContext, keys: Iterable[str] = ()) -> None:
        """`keys` must not appear in the trace."""
        self._settings = settings
        self._task = task
        self._keys = list(keys)
        self.id = trace_id_of(settings, task.thread_id)
        """The trace's id, the same in all tries. It exists even if no trace is sent."""
        self.url = trace_url_of(settings, self.id)
        """The address of the trace's page; None if no trace is sent."""
        self._maker: SpanMaker | None = None
        self._span: Any = None

    async def begin(self, database: Database, execution_id: str | None, types: Iterable[str]) -> None:
        """Start the try's span, with agents of these types, and store the trace's address with the run."""
        if not self._settings.tracing:
            return
        client, user = await asyncio.gather(
            asyncio.to_thread(trace_client, self._settings), self._look_up(database, execution_id)
        )
        if client is not None:
            self._open(client, execution_id, user, types)

    async def _look_up(self, database: Database, execution_id: str | None) -> str | None:
        if execution_id is None:
            return None
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                return await database.run(partial(executions.begin_trace, trace_url=self.url), execution_id)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the trace has no user, because the database is unavailable: %s", type(error).__name__)
            return None

    @harmless
    def _open(self, client: TraceClient, execution_id: str | None, user: str | None, types: Iterable[str]) -> None:
        task, settings = self._task, self._settings
        client.content.keep_back(self._keys)
        dag, run, task_id = (quote(part, safe="") for part in (task.dag_id, task.dag_run_id, task.task_id))
        mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
        place = {
            "dag_id": task.dag_id,
            "dag_run_id": task.dag_run_id,
            "task_id": task.task_id,
            "map_index": task.map_index,
            "try_number": task.try_number,
            "execution_id": execution_id,
            "run_type": task.run_type,
            "run_url": f"{settings.pages_link_base}/runs/{dag}/{run}",
            "airflow_url": f"{settings.airflow_link_base}/dags/{dag}/runs/{run}/tasks/{task_id}{mapped}",
        }
        name = task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"
        tags = [task.dag_id, *sorted(set(types)), settings.tracing_environment]
        self._maker = SpanMaker(
            client,
            trace_name=langfuse_name(f"{task.dag_id}.{name}"),
            session_id=session_of(task.dag_id, task.dag_run_id),
            user_id=langfuse_name(user) if user else None,
            tags=[langfuse_name(tag) for tag in tags],
            metadata={
                key: value for key, value in place.items() if value is not None and len(str(value)) <= _PROPAGATED
            },
        )
        if self.url is not None:
            run_input = client.content.text(task.run_input)
            self._span = self._maker.root(self.id, name, "span", input=run_input, metadata=Known(place))

    def agent(self, name: str, kind: str, *, call: int = 1) -> AgentTrace | None:
        """The spans of an agent of the task; None if none are sent. `call` counts its calls in a team."""
        if self._maker is None or self._span is None:
            return None
        metadata = {"type": kind, **({"call": call} if call > 1 else {})}
        return AgentTrace(self._maker, self.id, self._span, name, metadata)

    def item(self, thread: str, index: int, name: str, kind: str) -> tuple[str, str | None, AgentTrace | None]:
        """The id, address and spans of the trace of a batch's item. Each item is sampled by itself."""
        trace_id = trace_id_of(self._settings, thread)
        if self._maker is None or not is_traced(self._settings, trace_id):
            return trace_id, None, None
        metadata = {"type": kind, "item": index, "batch_trace_id": self.id, "try_number": self._task.try_number}
        spans = AgentTrace(self._maker, trace_id, None, f"{name}[{index}]", metadata)
        return trace_id, trace_url_of(self._settings, trace_id), spans

    @harmless
    def returns(self, result: Mapping[str, Any]) -> None:
        if self._span is None or self._maker is None:
            return
        summary = {key: result.get(key) for key in ("model", "usage", "cost_usd", "notice")}
        shown = next((result[key] for key in ("output", "results", "batch") if key in result), None)
        self._span.update(output=self._maker.client.content.text(shown), metadata=Known(summary))

    @harmless
    def end(self, error: BaseException | None) -> None:
        span, self._span = self._span, None
        if span is None or self._maker is None:
            return
        if isinstance(error, asyncio.CancelledError):
            span.update(level="WARNING", status_message="stopped")
        elif error is not None and not isinstance(error, Exception):
            span.update(status_message="waits for people")
        elif error is not None:
            found = classify(error)
            stopped = found.category == "cancelled"
            words = self._maker.client.content.message(found.category, found.exception_type, found.message)
            span.update(
                level="WARNING" if stopped else "ERROR",
                status_message=words,
                metadata=Known(category=found.category, exception=found.exception_type, final=found.final),
            )
        span.end()


def calls_of(trace: AgentTrace | None) -> list[BaseCallbackHandler]:
    """The handlers that trace an agent's models and tools; none if the graph has a handler of Langfuse's own."""
    return [TraceCalls(trace)] if trace is not None and not trace.traced_by_itself else []
