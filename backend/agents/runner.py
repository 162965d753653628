"""Runs agents for a task: the same for a worker, a trigger and a test."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.store.postgres.aio import AsyncPostgresStore
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.agents.agent_config import AgentConfig, AgentDeps
from backend.agents.blocking import AGENT_KEY
from backend.agents.cancellation import CancelWatch, RunCancelledError
from backend.agents.checkpoints import FencedSaver, open_pool
from backend.agents.graph_run import Graph, mapped, run_graph
from backend.agents.graph_source import load_graph
from backend.agents.models import ModelCredentials, build_model, resolve_model
from backend.agents.observer import AgentObserver, Usage
from backend.agents.recorder import Recorder
from backend.agents.registry import get_agent
from backend.agents.shared import SharedResources
from backend.agents.specs import AgentSpec
from backend.core.events import NewEvent
from backend.core.input_error import InputError
from backend.core.jsonable import dumps
from backend.core.settings import Settings
from backend.core.states import TaskState
from backend.core.workflow_error_handler import Classified, classify
from backend.db import executions, images, traces
from backend.db import threads as task_threads
from backend.db.engine import Database
from backend.db.executions import SYSTEM_KEY, RunState
from backend.db.threads import Claim
from backend.db.traces import Place

log = logging.getLogger(__name__)

_TRACE_NAMESPACE = uuid.UUID("0f2f4c38-6a3e-4d5f-9d53-5f0f0a9f7e11")


@dataclass(frozen=True, slots=True)
class TaskContext:
    """The try of a task instance that agents run in, and its run's `conf`."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    try_number: int
    conf: Mapping[str, Any]
    run_type: str | None = None

    @property
    def thread_id(self) -> str:
        """The same for all tries of the task instance."""
        return f"{self.dag_id}/{self.dag_run_id}/{self.task_id}/{self.map_index}"

    @property
    def run_input(self) -> dict[str, Any]:
        """What the run was given, without the system's own key."""
        return {key: value for key, value in self.conf.items() if key != SYSTEM_KEY}

    @property
    def run_model(self) -> str | None:
        """The model that the trigger asked for, for agents whose task names none."""
        system = self.conf.get(SYSTEM_KEY)
        model = system.get("model") if isinstance(system, Mapping) else None
        return model if isinstance(model, str) else None

    def place(self) -> Place:
        """Where records of this try belong."""
        return Place(self.dag_id, self.dag_run_id, self.task_id, self.map_index, self.try_number)

    def run_state(self) -> RunState:
        """The run as far as the task knows it."""
        return RunState(self.dag_id, self.dag_run_id, None, self.run_type, self.conf)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an agent ended. `error` is the exception of a failed one."""

    state: str
    output: Any
    model: str | None
    notice: str | None
    usage: Usage
    trace_id: str
    error: Exception | None = None

    def usage_json(self) -> dict[str, int]:
        """The tokens as XCom has them."""
        return {"input_tokens": self.usage.input_tokens, "output_tokens": self.usage.output_tokens}


class AgentRunner:
    """Runs the agents of one try of a task and records what they do."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        task: TaskContext,
        *,
        shared: SharedResources | None = None,
        credentials: ModelCredentials | None = None,
    ) -> None:
        """With `shared` it uses what the agents of one event loop have in common, and closes none of it.

        `credentials` are for the models of built-in agents; a graph of the user's own makes its models itself.
        """
        self._credentials = credentials
        self._settings = settings
        self._database = database
        self.task = task
        self._recorder = Recorder(database, task.place(), task.run_state())
        self._resources = AsyncExitStack()
        self._shared = shared
        self._saver: FencedSaver | None = None
        self._store: BaseStore | None = None
        self._claim: Claim | None = None
        self._going_on = False
        self._threads: dict[str, str] = {}
        self._watch = shared.watch if shared is not None else CancelWatch(database)
        self._execution_id: str | None = None

    async def __aenter__(self) -> "AgentRunner":
        await self._resources.enter_async_context(self._recorder)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._resources.__aexit__(*error)

    async def claim(self, threads: Mapping[str, str], given: Any) -> None:
        """Take the task's threads for this try, so that agents go on where an earlier try stopped.

        `threads` maps each agent to its LangGraph thread. `given` is all that the agents are asked to do; a try with
        another one starts from nothing. Without a database the agents run without checkpoints. Raises
        `SupersededError` when a later try has begun.
        """
        digest = sha256(dumps(given).encode()).hexdigest()
        self._threads = dict(threads)
        try:
            claim = await self._database.run(self._begin, list(threads.values()), digest)
        except (SQLAlchemyError, OSError) as error:
            log.warning("no checkpoints are kept, the database is out of reach: %s", type(error).__name__)
            return
        self._claim = self._recorder.claim = claim
        self._going_on = claim.going_on
        if self._shared is None:
            pool = await self._resources.enter_async_context(open_pool(self._settings.database_url, max_size=4))
            self._store = AsyncPostgresStore(pool)
        else:
            pool, self._store = self._shared.pool, self._shared.store
        self._saver = FencedSaver(pool, claim)
        if self._going_on:
            log.info("going on from the checkpoints of an earlier try")
        if self._execution_id is not None and (current := asyncio.current_task()) is not None:
            await self._resources.enter_async_context(self._watch.watching(self._execution_id, current))

    @property
    def execution_id(self) -> str | None:
        """The run's id in our records; known once the threads are claimed."""
        return self._execution_id

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the run."""
        return self._execution_id in self._watch.cancelled

    async def superseded(self) -> bool:
        """Whether the task is somebody else's by now: a later try's, or the same one's in another triggerer."""
        if self._claim is None:
            return False
        try:
            return not await self._database.run(task_threads.holds, self._claim)
        except (SQLAlchemyError, OSError):
            return False

    def tell_state(self, state: str, *, started_at: datetime, finished_at: datetime | None = None) -> None:
        """Record the task's state, for tasks that end in the triggerer: Airflow calls no listener for them."""
        task = self.task
        seen = TaskState(
            task.task_id,
            task.map_index,
            task.try_number,
            state,
            started_at,
            finished_at,
            (finished_at - started_at).total_seconds() if finished_at is not None else None,
        )

        def write(connection: Connection, _execution_id: str) -> list[NewEvent]:
            if self._claim is None or task_threads.holds(connection, self._claim):
                executions.observe(connection, task.run_state(), [seen])
            return []

        self._recorder.put(write)

    def keep_result(self, result: dict[str, Any]) -> None:
        """Record what the task returns as the run's result."""
        claim = self._claim

        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            if claim is not None:
                if not task_threads.holds(connection, claim):
                    return []
                task_threads.complete(connection, claim)
            executions.set_result(connection, execution_id, result)
            return []

        self._recorder.put(write)

    def _begin(self, connection: Connection, agents: list[str], digest: str) -> Claim:
        execution_id = self._execution_id = executions.ensure(connection, self.task.run_state())
        traces.supersede(connection, execution_id, self.task.place())
        return task_threads.begin(connection, execution_id, self.task.thread_id, self.task.try_number, agents, digest)

    async def run(self, spec: AgentSpec, input_data: Mapping[str, Any]) -> Outcome:
        """Run one agent to its end. A failure is recorded and given back in the outcome, not raised."""
        trace_id = uuid.uuid5(_TRACE_NAMESPACE, f"{self.task.thread_id}/{spec.name}").hex
        place = replace(self.task.place(), agent=spec.name, agent_type=spec.type)
        requested = spec.model or self.task.run_model
        if requested is None and self._credentials is not None and spec.graph is None:
            requested = self._credentials.model
        observer = AgentObserver(self._recorder, place, model=requested, trace_id=trace_id)
        config: RunnableConfig = {
            "callbacks": [observer],
            "run_name": spec.name,
            "metadata": {AGENT_KEY: spec.name},
            "configurable": {
                **spec.configurable,
                "thread_id": self._threads.get(spec.name, self.task.thread_id),
            },
        }
        try:
            if spec.graph is None:
                graph = self._built_in(spec, requested, observer, input_data)
            else:
                observer.begin(input_data)
                graph = await self._own(spec, config)
            if self._going_on:
                observer.used_before(await self._used_before(place))
            async with asyncio.timeout(spec.timeout):
                output = await run_graph(
                    graph,
                    config,
                    dict(input_data),
                    observer,
                    context=spec.context,
                    going_on=self._going_on,
                )
            output = mapped(output, spec.output_mapping)
        except Exception as error:
            if isinstance(error, TimeoutError) and spec.timeout is not None:
                error = TimeoutError(f"the agent {spec.name!r} took longer than its timeout of {spec.timeout:g} s")
            return self._failure(observer, error)
        except asyncio.CancelledError:
            if self.cancelled:
                observer.failed(classify(RunCancelledError()), "fail")
            observer.finish("cancelled", None)
            raise
        observer.finish("success", output)
        return self._outcome(observer, "success", output)

    def _built_in(
        self, spec: AgentSpec, requested: str | None, observer: AgentObserver, input_data: Mapping[str, Any]
    ) -> Graph:
        try:
            definition = get_agent(spec.type)
            config = AgentConfig.parse(spec.config)
            choice = resolve_model(
                requested, purpose=definition.purpose, settings=self._settings, credentials=self._credentials
            )
            observer.uses(choice.name, choice.notice)
        finally:
            observer.begin(input_data)
        model = build_model(choice, self._settings, credentials=self._credentials, **config.model_params())
        definition.check_input(input_data)
        deps = AgentDeps(self._settings, self._read_upload, choice.max_image_side)
        return definition.build(config, model, deps).compile(checkpointer=self._saver, name=spec.name)

    async def _own(self, spec: AgentSpec, config: RunnableConfig) -> Graph:
        return await load_graph(
            str(spec.graph),
            config=config,
            project_file=self._settings.langgraph_json,
            resources=self._resources,
            saver=self._saver,
            store=self._store,
            name=spec.name,
        )

    async def _used_before(self, place: Place) -> Usage:
        def read(connection: Connection) -> Usage:
            execution_id = executions.ensure(connection, self.task.run_state())
            used = traces.used_before(connection, execution_id, place)
            return Usage(input_tokens=used[0], output_tokens=used[1], cost=used[2], calls=used[3])

        return await self._database.run(read)

    def _failure(self, observer: AgentObserver, error: Exception) -> Outcome:
        found = classify(error)
        observer.failed(found, action(found))
        observer.finish("failed", None)
        error.visual_ai_recorded = True  # type: ignore[attr-defined]  # read by the listener
        return self._outcome(observer, "failed", None, error)

    @staticmethod
    def _outcome(observer: AgentObserver, state: str, output: Any, error: Exception | None = None) -> Outcome:
        return Outcome(state, output, observer.model, observer.notice, observer.total_usage, observer.trace_id, error)

    async def _read_upload(self, image_id: uuid.UUID) -> bytes | None:
        image = await self._database.run(images.get, str(image_id))
        return image.content if image else None


def action(found: Classified) -> str:
    """What happens after an error that ended an agent."""
    return "fail" if found.final else "task_retry"


async def run_single(runner: AgentRunner, spec: AgentSpec) -> dict[str, Any]:
    """Run the one agent of a task; gives the task's XCom. Raises the agent's error, which is recorded."""
    given = runner.task.run_input if spec.input_data is None else spec.input_data
    await runner.claim({spec.name: runner.task.thread_id}, [spec.type, given])
    outcome = await runner.run(spec, given)
    if outcome.error is not None:
        raise outcome.error
    result = {
        "output": outcome.output,
        "agent": spec.name,
        "model": outcome.model,
        "usage": outcome.usage_json(),
        "cost_usd": outcome.usage.cost_usd,
        "trace_id": outcome.trace_id,
        "trace_url": None,
        "attempts": runner.task.try_number,
        "notice": outcome.notice,
    }
    runner.keep_result(result)
    return result


def is_final(error: BaseException) -> bool:
    """Whether the task must not be tried again after this error."""
    return isinstance(error, InputError) or classify(error).final
