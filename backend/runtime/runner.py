"""Runs agents for a task: the same for a worker, a trigger and a test."""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.checkpoints.batch_writer import CheckpointWriter
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.pool import Pool, open_pool
from backend.core.budget import Budget
from backend.core.jsonable import dumps
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.core.states import TaskState
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.runs import executions, traces
from backend.db.runs.threads import Claim
from backend.db.runs.traces import Place
from backend.models.attempts import REAL_TIME, RetryTiming
from backend.models.resolve import ModelCredentials, provider_keys
from backend.models.usage import Usage
from backend.observation.recording.observer import AgentObserver
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import RunResult, StateSeen
from backend.observation.recording.writer import RecordWriter
from backend.observation.task_context import TaskContext
from backend.observation.tracing.task import TaskTrace, calls_of
from backend.ratelimit.factory import open_gate
from backend.runtime.budget.alerts import open_watch
from backend.runtime.budget.guard import Guard, Ledger, Purse, Spent
from backend.runtime.cancellation import CallStop, CancelWatch, RunCancelledError
from backend.runtime.graphs.factory import GraphMaker
from backend.runtime.graphs.retry import record_failure, run_with_policy
from backend.runtime.graphs.run import mapped
from backend.runtime.loop_watchdog import AGENT_KEY
from backend.runtime.specs import AgentSpec
from backend.runtime.triggerer_resources import SharedResources

__all__ = ["AgentOutcome", "AgentRunner", "TaskContext", "call_thread", "run_single"]

log = logging.getLogger(__name__)

CLAIM_SECONDS = 10.0
"""How long a task waits for its threads; a database that is away longer costs the checkpoints, not the task."""


@dataclass(frozen=True, slots=True)
class AgentOutcome:
    """How an agent's run ended. `error` is the recorded failure of one that failed."""

    state: str
    output: Any
    model: str | None
    notice: str | None
    usage: Usage
    trace_id: str
    error: AgentFailure | None = None

    def usage_json(self) -> dict[str, int]:
        """The token counts in the form of the task's XCom."""
        return {"input_tokens": self.usage.input_tokens, "output_tokens": self.usage.output_tokens}


class AgentRunner:
    """Runs the agents of one try of a task and records what they do."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        task: TaskContext,
        *,
        budget: Budget | None = None,
        credentials: ModelCredentials | None = None,
        shared: SharedResources | None = None,
        gate: ModelGate | None = None,
        timing: RetryTiming = REAL_TIME,
    ) -> None:
        """`budget` is the task's own, over all its tries; the run's is found in its conf.

        `gate` is asked before each call of a built-in agent's model: without one that of the settings. `timing` is that
        of attempts after errors.
        `credentials` are for the models of built-in agents; a graph of the user's own makes its models itself. With
        `shared` it uses what the agents of one event loop have in common, and closes none of it.
        """
        self._shared = shared
        self._began = datetime.now(UTC)
        self._settings = settings
        self._budget = budget
        self._purse = Purse(())
        self._database = self.database = database
        self.task = task
        self._records = shared.records if shared is not None else RecordWriter(database)
        self._recorder = self.recorder = Recorder(self._records, task.place(), task.run_state())
        self._recorder.hidden = provider_keys(settings, credentials)
        self.trace = TaskTrace(settings, task, self._recorder.hidden)
        self._resources = AsyncExitStack()
        self.graphs = GraphMaker(settings, database, task, credentials, self._resources)
        self.graphs.gate, self.graphs.timing = gate, timing
        self._going_on = False
        self._threads: dict[str, str] = {}
        self._watch = shared.watch if shared is not None else CancelWatch(database)
        self._execution_id: str | None = None
        self.stopped = False
        """Airflow stops the task: often it hears of a run that is cancelled before we do."""

    async def __aenter__(self) -> "AgentRunner":
        if self._shared is None:
            self._resources.callback(self._records.close)
        await self._resources.enter_async_context(self._recorder)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.trace.end(error[1])
        await self._resources.__aexit__(*error)

    async def claim(self, threads: Mapping[str, str], given: Any, *, calls: int = 1) -> None:
        """Take the task's threads for this try, so that agents go on where an earlier try stopped.

        `threads` maps each agent to the LangGraph thread of its first call; there are at most `calls` of each. `given`
        is all that the agents are asked to do; a try with another one starts from nothing. Without a database the first
        try runs without checkpoints; a later one raises `ConnectionError`, as it would pay again for what is done (a
        retry helps). Raises `SupersededError` when a later try has begun.
        """
        await self.connect()
        await self.open_budgets()
        digest = sha256(dumps(given).encode()).hexdigest()
        self._threads = dict(threads)
        try:
            every = [call_thread(thread, call) for thread in threads.values() for call in range(1, calls + 1)]
            async with asyncio.timeout(CLAIM_SECONDS):
                claim = await self._recorder.take_thread(every, digest, instance=self.task.instance)
        except (SQLAlchemyError, OSError) as error:
            if self.task.try_number > 1:
                raise ConnectionError("the database is out of reach, and with it what earlier tries did") from error
            log.warning("no checkpoints are kept, the database is out of reach: %s", type(error).__name__)
            return
        self.hold(claim)
        await self.open_checkpoints(claim, every if claim.going_on else ())
        if self._going_on:
            log.info("going on from the checkpoints of an earlier try")
        if self._recorder.execution_id is not None:
            await self.watch(self._recorder.execution_id)

    def hold(self, claim: Claim) -> None:
        """The task's thread is this try's."""
        self._recorder.claim = claim
        self._going_on = claim.going_on

    async def begin_trace(self, specs: Iterable[AgentSpec]) -> None:
        """Begin the try's part of the task's trace, after its threads are claimed."""
        await self.trace.begin(self._database, self._execution_id, [spec.type for spec in specs])

    async def watch(self, execution_id: str) -> None:
        """Stop the present asyncio task when somebody cancels the run."""
        self._execution_id = execution_id
        if (current := asyncio.current_task()) is not None:
            await self._resources.enter_async_context(self._watch.watching(execution_id, current))

    @property
    def execution_id(self) -> str | None:
        """The run's id in our records; known once the threads are claimed."""
        return self._execution_id

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled the run, or stopped the task."""
        return self.stopped or self._execution_id in self._watch.cancelled

    async def open_budgets(self) -> None:
        """Find out what the task's and the run's budgets have left, before the first agent begins.

        Raises `InputError` for a wrong budget in the run's conf and `sqlalchemy.exc.OperationalError` when what was
        used can't be read: a budget is never guessed.
        """
        run_budget = self.task.run_budget
        ledgers: list[Ledger] = []
        if self._budget is not None:
            ledgers.append(Ledger(self._budget, "task", await self._spent(False)))
        if run_budget is not None:
            ledgers.append(Ledger(run_budget, "run", await self._spent(True)))
        self._purse = Purse(ledgers, await open_watch(self._database, self._recorder, self.task) if ledgers else None)
        if run_budget is not None:
            await self._resources.enter_async_context(self._purse.following(ledgers[-1], lambda: self._spent(True)))

    def callbacks(self, observer: AgentObserver) -> list[BaseCallbackHandler]:
        """What watches an agent: the observer, what stops its calls at its end, a guard if there is a budget, and what
        traces the calls that these let through."""
        guards = [Guard(self._purse, model=observer.model)] if self._purse else []
        return [observer, CallStop(lambda: observer.over), *guards, *calls_of(observer.trace)]

    async def _spent(self, whole_run: bool) -> Spent:
        def read(connection: Connection) -> Spent:
            execution_id = executions.ensure(connection, self.task.run_state())
            return Spent(
                *traces.spent_before(connection, execution_id, self.task.place(), self._began, whole_run=whole_run)
            )

        return await retry_until_available(partial(self._database.run, read))

    async def superseded(self) -> bool:
        """Whether the task is somebody else's by now, a later try's or the same one's in another triggerer, with all
        records written. Nobody knows while the database is out of reach: then it is not."""
        if self._recorder.claim is not None:
            self._recorder.put(lambda _connection, _execution_id: [])  # the claim is looked at with what is written
            await self._recorder.flush()
        return self._recorder.superseded

    def tell_state(self, state: str, *, started_at: datetime, finished_at: datetime | None = None) -> None:
        """Record the task's state, for tasks that end in the triggerer: Airflow calls no listener for them."""
        task = self.task
        duration = (finished_at - started_at).total_seconds() if finished_at is not None else None
        seen = TaskState(task.task_id, task.map_index, task.try_number, state, started_at, finished_at, duration)
        self._recorder.put(StateSeen(seen))

    def keep_result(self, result: dict[str, Any]) -> None:
        """Record what the task returns as the run's result."""
        self.trace.returns(result)
        self._recorder.put(RunResult(result))

    async def run(self, spec: AgentSpec, input_data: Mapping[str, Any], *, call: int = 1) -> AgentOutcome:
        """Run one agent to its end. A failure is recorded and returned in the outcome, not raised.

        `call` counts an agent's calls in a team where it may work several times; each has a thread of its own.
        """
        requested = self.graphs.requested(spec)
        observer = self._observer(spec, requested, call)
        config: RunnableConfig = {
            "callbacks": [],
            "run_name": spec.name,
            "metadata": {AGENT_KEY: spec.name},
            "configurable": {
                **spec.configurable,
                "thread_id": call_thread(self._threads.get(spec.name, self.task.thread_id), call),
            },
        }
        try:
            if spec.graph is None:
                graph = self.graphs.built_in(spec, requested, observer, input_data)
            else:
                observer.begin(input_data)
                graph = await self.graphs.own(spec, config)
                if observer.trace is not None:
                    observer.trace.uses(graph)
            config["callbacks"] = self.callbacks(observer)
            if self._going_on and call == 1:  # what earlier tries used is counted by agent, not by call
                observer.used_before(await self._used_before(observer.place))
            async with asyncio.timeout(spec.timeout):
                output = await run_with_policy(
                    graph,
                    config,
                    dict(input_data),
                    observer,
                    self.graphs.policy_of(spec),
                    context=spec.context,
                    going_on=self._going_on,
                    timing=self.graphs.timing,
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

    async def connect(self) -> Pool:
        """Begin to connect to the checkpoints, and to the gate of model calls."""
        graphs = self.graphs
        if graphs.gate is None:
            if self._shared is not None:
                graphs.gate = self._shared.gate
            else:
                opened = open_gate(self._settings, self._database)
                graphs.gate = await self._resources.enter_async_context(opened)
        if graphs.pool is None:
            if self._shared is not None:
                graphs.pool, graphs.store, graphs.http = self._shared.pool, self._shared.store, self._shared.http
                graphs.cache = self._shared.graphs if self._settings is self._shared.settings else None
            else:
                opening = open_pool(self._settings.database_url, max_size=4)
                graphs.pool = await self._resources.enter_async_context(opening)
        return graphs.pool

    async def open_checkpoints(self, claim: Claim, known: Collection[str], *, gather: float = 0) -> None:
        """Have the task's graphs keep their checkpoints; `known` is `BatchedSaver`'s, `gather` that of a writer of the
        task's own."""
        pool = await self.connect()
        if self._shared is not None:
            writer = self._shared.checkpoints
        else:
            writer = CheckpointWriter(self._settings.database_url, gather=gather)
            self._resources.callback(writer.close)
        saver = BatchedSaver(pool, claim, writer, known)
        self.graphs.saver = await self._resources.enter_async_context(saver.writing())

    def skip(self, spec: AgentSpec, reason: str) -> None:
        """Record that an agent was not run, and why."""
        requested = self.graphs.requested(spec)
        observer = self._observer(spec, requested)
        observer.uses(requested, reason)
        observer.begin(None)
        observer.finish("skipped", None)

    def _observer(self, spec: AgentSpec, requested: str | None, call: int = 1) -> AgentObserver:
        place = replace(self.task.place(), agent=spec.name, agent_type=spec.type)
        trace = self.trace
        spans = trace.agent(spec.name, spec.type, call=call)
        return AgentObserver(
            self._recorder, place, model=requested, trace_id=trace.id, trace_url=trace.url, trace=spans
        )

    async def _used_before(self, place: Place) -> Usage:
        def read(connection: Connection) -> Usage:
            execution_id = executions.ensure(connection, self.task.run_state())
            used = traces.used_before(connection, execution_id, place)
            return Usage(input_tokens=used[0], output_tokens=used[1], cost=used[2], calls=used[3])

        return await retry_until_available(partial(self._database.run, read))

    def _failure(self, observer: AgentObserver, error: Exception) -> AgentOutcome:
        failure = record_failure(observer, error)
        observer.finish("failed", None)
        return self._outcome(observer, "failed", None, failure)

    @staticmethod
    def _outcome(observer: AgentObserver, state: str, output: Any, error: AgentFailure | None = None) -> AgentOutcome:
        return AgentOutcome(
            state, output, observer.model, observer.notice, observer.total_usage, observer.trace_id, error
        )


def call_thread(thread: str, call: int) -> str:
    """The LangGraph thread of an agent's call, which counts from 1."""
    return thread if call == 1 else f"{thread}/{call}"


async def run_single(runner: AgentRunner, spec: AgentSpec) -> dict[str, Any]:
    """Run the one agent of a task; returns the task's XCom. Raises the agent's `AgentFailure`, which is recorded."""
    given = runner.task.run_input if spec.input_data is None else spec.input_data
    await runner.claim({spec.name: runner.task.thread_id}, [spec.type, given, spec.config.get("output_schema")])
    await runner.begin_trace([spec])
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
        "trace_url": runner.trace.url,
        "attempts": runner.task.try_number,
        "notice": outcome.notice,
    }
    runner.keep_result(result)
    return result
