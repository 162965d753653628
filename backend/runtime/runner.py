"""Runs the agents of one try of a task: the same in a worker, in a triggerer and in a test.

A try goes through these steps. `run_single` (`single.py`), `run_team` and `run_batch` call them in this order:

1. `claim` takes the task's thread, so that no earlier try can write any more, and finds out whether there is something
   to resume from. It opens the checkpoints of the task's graphs, and the budgets.
2. `begin_trace` begins the try's part of the task's trace in Langfuse.
3. `run` runs one agent, as often as the task needs: it makes the graph, runs it under the error policy with the
   callback handlers that record, limit and trace it, and returns an `AgentOutcome`. A failure is recorded, and raised
   by the caller if it fails the task.
4. `keep_result` records what the task returns.

A database that is unavailable never fails an agent: its records are dropped after a while, and the first try runs
without checkpoints.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.types import Durability
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.agents.tools.ledger import ledger_of_task
from backend.checkpoints.batched_saver import BatchedSaver
from backend.core.asking.terms import QuestionTerms
from backend.core.budget import Budget
from backend.core.errors.input_error import InputError
from backend.core.exact_json import fingerprint_text
from backend.core.large_values import apart
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.core.turns import Turn
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.questions import NewQuestion
from backend.db.runs import executions, traces
from backend.db.runs.threads import Claim
from backend.db.runs.traces import Place
from backend.models.attempts import REAL_TIME, RetryTiming
from backend.models.hidden_values import hidden_values
from backend.models.resolve import ModelCredentials, Purpose
from backend.models.usage import Usage
from backend.observation.recording.observer import AgentObserver
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import RunResult
from backend.observation.task_context import TaskContext
from backend.observation.tracing.task import TaskTrace, calls_of
from backend.pictures.inline import data_urls
from backend.pictures.reader import upload_reader
from backend.runtime.asking import Asking
from backend.runtime.budget.call_limits import CallLimits
from backend.runtime.budget.guard import Guard, Purse, open_purse
from backend.runtime.cancellation import CallStop, RunCancelledError
from backend.runtime.forking import change_state, check_context, copy_threads, forked_spec, forked_task
from backend.runtime.graphs.factory import GraphFactory, Prepared, config_of
from backend.runtime.graphs.pauses import Graph, GraphPaused
from backend.runtime.graphs.retry import record_failure, run_with_policy
from backend.runtime.graphs.run import check_input
from backend.runtime.resources import AgentResources
from backend.runtime.specs import AgentSpec
from backend.runtime.tool_ledger import TaskToolLedger
from backend.runtime.turns.begin import begin_turn
from backend.runtime.turns.live import LiveTurn
from backend.runtime.turns.work import turn_graph, write_state

__all__ = ["AgentOutcome", "AgentRunner", "AgentsWaiting", "TaskContext", "call_thread"]

log = logging.getLogger(__name__)

HOLD_SECONDS = 10.0
"""How long a turn of a conversation stays in its worker when it waits for people, who are often there."""

CLAIM_SECONDS = 10.0
"""How long a task waits for its threads. Without a database for longer, it runs without checkpoints."""


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
    questions: tuple[NewQuestion, ...] = ()
    """What it waits for from people, if its state is `awaiting_input`."""

    def usage_json(self) -> dict[str, int]:
        """The token counts in the form of the task's XCom."""
        return {"input_tokens": self.usage.input_tokens, "output_tokens": self.usage.output_tokens}


class AgentsWaiting(BaseException):  # like Airflow's TaskDeferred it is no error
    """Agents of the task wait for people, and nothing else of it can go on. Their questions are stored."""


class AgentRunner:
    """Runs the agents of one try. Use it as an asynchronous context manager: on exit, all records are written."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        task: TaskContext,
        *,
        budget: Budget | None = None,
        credentials: ModelCredentials | None = None,
        shared: AgentResources | None = None,
        gate: ModelGate | None = None,
        durability: Durability | None = "async",
        terms: QuestionTerms | None = None,
        timing: RetryTiming = REAL_TIME,
    ) -> None:
        """`budget` is the task's own, for all of its tries; the run's budget is in the run's conf.

        `credentials` are for the models of built-in agents; users' graphs make their models themselves. With `shared`
        resources the runner opens and closes none of its own. `gate` admits the model calls of built-in agents instead
        of the one in the settings, and `timing` carries out the waits between attempts. `durability` says when graphs
        write their checkpoints, as LangGraph defines it; with None no state is kept, and nothing resumes. `terms` say
        who may answer the agents' questions, and until when.
        """
        self._own_resources = shared is None
        self._resources = shared or AgentResources(settings, database, gate=gate)
        self._budget = budget
        self._durability = durability
        self._began = datetime.now(UTC)
        self.database = database
        self.task = task
        self.recorder = Recorder(
            self._resources.records, task.place(), task.run_state(), hidden=hidden_values(settings, credentials)
        )
        self.trace = TaskTrace(settings, task, self.recorder.hidden)
        self._stack = AsyncExitStack()
        self.graphs = GraphFactory(
            settings, task, credentials, self._resources, self._stack, timing, self.recorder.hidden
        )
        self.asking = Asking(self.recorder, database, task, terms or QuestionTerms(), durability)
        self._purse = Purse(())
        self._limits: CallLimits | None = None
        self._saver: BatchedSaver | None = None
        self._threads: dict[str, str] = {}
        self._resumes = False
        self._answered: set[str] = set()
        self.live: LiveTurn | None = None
        """The turn of a conversation that the task runs, if it does."""
        self.execution_id: str | None = None
        """The run's id in our records; known once the threads are claimed."""
        self._stopped = False

    async def __aenter__(self) -> "AgentRunner":
        upload_reader.set(self.task.upload_reader)
        ledger_of_task.set(None)
        if self._own_resources:
            await self._stack.enter_async_context(self._resources)
        await self._stack.enter_async_context(self.recorder)
        self._limits = CallLimits(self._resources.spend_limits, self.task, asyncio.get_running_loop())
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.trace.end(error[1])
        await self._stack.__aexit__(*error)

    async def claim(
        self,
        threads: Mapping[str, str],
        request: Any,
        *,
        calls: int = 1,
        unaffected: Collection[str] | None = (),
        turn: Turn | None = None,
    ) -> None:
        """Take the task's threads for this try, so that agents resume where an earlier try stopped.

        `threads` maps each agent to the LangGraph thread of its first call; each agent has at most `calls` of them.
        `request` is everything that the agents are asked to do; a try that asks for something else starts from nothing.
        `unaffected` are the agents that don't depend on the one that a forked run goes on with; None: those that had
        begun before it. For a `turn` the conversation is taken as well, in whose thread its states are.

        Without a database the first try runs without checkpoints. A later one raises `ConnectionError`, because it
        would pay again for what earlier tries did (a retry helps). Raises `SupersededError` when a later try has begun,
        and what `begin_turn` raises.
        """
        if turn is not None and self._durability is None:
            raise InputError("is off, but a conversation is made of the states that are kept", field="checkpoint")
        await self.open_budgets()
        digest = await apart(request, lambda: sha256(fingerprint_text(request).encode()).hexdigest())
        self._threads = dict(threads)
        try:
            names = threads.values() if turn is None else ()
            every = [call_thread(thread, call) for thread in names for call in range(1, calls + 1)]
            async with asyncio.timeout(CLAIM_SECONDS):
                claim = await self.recorder.take_thread(every, digest, instance=self.task.instance)
        except (SQLAlchemyError, OSError) as error:
            if self.task.try_number > 1 or self.task.fork is not None or turn is not None:
                raise ConnectionError("the database is unavailable, and with it what earlier tries did") from error
            log.warning("no checkpoints are kept, the database is unavailable: %s", type(error).__name__)
            return
        if turn is not None:
            await self._take_turn(turn, claim)
            return
        kept = None if unaffected is None else {threads[name] for name in unaffected}
        copied = await self.copy_forked(claim, every, digest, unaffected=kept)
        resumes = claim.resumes or copied
        self._resumes = resumes and self._durability is not None
        await self.open_checkpoints(claim, every if resumes else ())
        if self._resumes:
            log.info("resuming from the checkpoints of an earlier try")
        if self.recorder.execution_id is not None:
            await self.watch(self.recorder.execution_id)

    async def _take_turn(self, turn: Turn, claim: Claim) -> None:
        if self.recorder.execution_id is not None:
            await self.watch(self.recorder.execution_id)  # it may wait for others
        self.live = await begin_turn(self.database, self.task, turn, claim, self.recorder)
        self._resumes = claim.resumes
        if turn.durability in ("async", "sync", "exit"):
            self._durability = cast(Durability, turn.durability)
        await self.open_checkpoints(claim, [turn.conversation])

    async def copy_forked(
        self, claim: Claim, threads: Sequence[str], digest: str, *, unaffected: Collection[str] | None
    ) -> bool:
        """Begin the threads as copies, if the run is a fork; see `copy_threads`."""
        if self._durability is None:
            return False
        return await copy_threads(self.database, self.task, claim, threads, digest, unaffected=unaffected)

    async def open_checkpoints(self, claim: Claim, known: Collection[str], *, gather: float = 0) -> None:
        """Keep the checkpoints of the task's graphs under a claim; see `AgentResources.saver`."""
        self.recorder.claim = claim
        if self._durability is None:
            return
        ledger_of_task.set(TaskToolLedger(self.database, self.recorder, claim))
        saver = self._resources.saver(claim, known, self._durability, gather=gather)
        self._saver = await self._stack.enter_async_context(saver.writing())

    async def open_budgets(self) -> None:
        """Read what is left of the task's and the run's budgets. Raises as `open_purse` does."""
        opened = open_purse(self.database, self.recorder, self.task, self._budget, self._began)
        self._purse = await self._stack.enter_async_context(opened)

    async def begin_trace(self, specs: Iterable[AgentSpec]) -> None:
        """Begin the try's part of the task's trace, after its threads are claimed."""
        await self.trace.begin(self.database, self.execution_id, [spec.type for spec in specs])

    async def watch(self, execution_id: str) -> None:
        """Cancel the present asyncio task when a user cancels the run."""
        self.execution_id = execution_id
        if (current := asyncio.current_task()) is not None:
            watching = self._resources.cancel_watch.watching(execution_id, current)
            await self._stack.enter_async_context(watching)

    @property
    def cancelled(self) -> bool:
        """Whether a user cancelled the run, or Airflow stopped the task."""
        return self._stopped or self.execution_id in self._resources.cancel_watch.cancelled

    def stop(self) -> None:
        """Airflow stops the task. It often learns that a run was cancelled before we do."""
        self._stopped = True

    def callbacks(self, observer: AgentObserver) -> list[BaseCallbackHandler]:
        """The callback handlers of an agent: its observer, what stops its calls once it has ended, the guard of its
        budgets and limits, and the tracing of the calls that these let through."""
        guard = Guard(self._purse, self._limits, model=observer.model)
        return [observer, CallStop(lambda: observer.finished), guard, *calls_of(observer.trace)]

    def keep_result(self, result: dict[str, Any]) -> None:
        self.trace.returns(result)
        self.recorder.put(RunResult(result))

    async def prepare(self, spec: AgentSpec, purpose: Purpose | None) -> Prepared:
        """A graph for any number of inputs; see `GraphFactory.prepare`."""
        return await self.graphs.prepare(spec, purpose, self._saver)

    async def run(self, spec: AgentSpec, input_data: Any, *, call: int = 1) -> AgentOutcome:
        """Run one agent to its end. A failure is recorded and returned in the outcome, not raised.

        `call` counts an agent's calls in a team where it may work several times; each has a thread of its own.
        """
        spec, live, graph = forked_spec(spec, self.task), self.live, None
        requested = self.graphs.requested(spec)
        observer = self._observer(spec, requested, call)
        config = config_of(spec, call_thread(self._threads.get(spec.name, self.task.thread_id), call))
        try:
            if spec.graph is None:
                graph = self.graphs.built_in(spec, requested, observer, input_data, self._saver)
            else:
                observer.begin(input_data)
                graph = turn_graph(await self.graphs.own(spec, config, self._saver), live.turn if live else None)
                check_context(graph, spec, self.task)
                if observer.trace is not None:
                    observer.trace.uses(graph)
            await check_input(input_data, self.graphs.largest_input)
            config["recursion_limit"] = self.graphs.step_limit(graph, spec)
            config["callbacks"] = self.callbacks(observer)
            if self._resumes and call == 1:  # what earlier tries used is known by agent, not by call
                observer.used_before(await self._used_before(observer.place))
            given = input_data if spec.graph is None else await self.graphs.with_pictures(input_data)
            await self.prepare_state(graph, config, given)
            if live is not None and live.turn.update is not None:
                output = await write_state(graph, config, live.turn)
                observer.finish("success", output)
                await live.succeed(graph, config)
                return self._outcome(observer, "success", output)
            async with asyncio.timeout(spec.timeout):
                output = await run_with_policy(
                    graph,
                    config,
                    dict(given) if isinstance(given, Mapping) else given,
                    observer,
                    self.graphs.policy_of(spec),
                    context=spec.context,
                    resumes=self._resumes,
                    answers=self.asking.answers,
                    mapping=spec.output_mapping,
                    largest=self.graphs.largest_output,
                    timing=self.graphs.timing,
                    live=live,
                )
        except GraphPaused as paused:
            if not paused.pauses:
                failure = record_failure(observer, self.asking.cannot_wait())
                observer.finish("failed", None)
                return self._outcome(observer, "failed", None, failure)
            observer.finish("awaiting_input", None)
            thread = config["configurable"]["thread_id"]
            asked = [NewQuestion(thread, one.id, spec.name, one.node, one.asked) for one in paused.pauses]
            if live is not None:
                await self.asking.store(asked)  # whoever hears of them may answer at once
                await live.pause(graph, config)
            return self._outcome(observer, "awaiting_input", None, questions=tuple(asked))
        except Exception as error:
            if isinstance(error, TimeoutError) and spec.timeout is not None:
                error = TimeoutError(f"the agent {spec.name!r} took longer than its timeout of {spec.timeout:g} s")
            failure = record_failure(observer, error if live is None else live.decided(error))
            observer.finish("failed", None)
            if live is not None:
                await live.fail(graph, config, failure)
            return self._outcome(observer, "failed", None, failure)
        except asyncio.CancelledError:
            if self.cancelled:
                observer.failed(classify(RunCancelledError()), "fail")
            observer.finish("cancelled", None)
            raise
        observer.finish("success", output)
        if live is not None:
            await live.succeed(graph, config)
        return self._outcome(observer, "success", output)

    async def prepare_state(self, graph: Graph, config: RunnableConfig, given: Any) -> None:
        """Before an agent runs: its input's pictures are left out of its checkpoints, and a fork's changes are made."""
        if self._saver is None:
            return
        self._saver.leave_out(data_urls(given))
        fork = forked_task(self.task)
        if fork is not None and fork.other_input:  # whose checkpoint may lack pictures of the other input
            self._saver.leave_out(data_urls(await self.graphs.with_pictures(sorted(self.task.uploads))))
        await change_state(graph, config, self.task, given)

    def skip(self, spec: AgentSpec, reason: str) -> None:
        """Record that an agent was not run, and why."""
        requested = self.graphs.requested(spec)
        observer = self._observer(spec, requested)
        observer.uses(requested, reason)
        observer.begin(None)
        observer.finish("skipped", None)

    def _observer(self, spec: AgentSpec, requested: str | None, call: int = 1) -> AgentObserver:
        place = replace(self.task.place(), agent=spec.name, agent_type=spec.type)
        trace, spans = self.trace, self.trace.agent(spec.name, spec.type, call=call)
        return AgentObserver(self.recorder, place, model=requested, trace_id=trace.id, trace_url=trace.url, trace=spans)

    async def _used_before(self, place: Place) -> Usage:
        def read(connection: Connection) -> Usage:
            execution_id = executions.ensure(connection, self.task.run_state())
            return Usage(*traces.used_before(connection, execution_id, place).get(None, ()))

        return await retry_until_available(partial(self.database.run, read))

    async def ask(self, outcomes: Iterable[AgentOutcome]) -> None:
        """Store the questions of agents that wait for people, and raise `AgentsWaiting`; if none waits, do nothing.

        Raises `ConnectionError` if they can't be stored (a retry helps, and repeats no call).
        """
        asked = [question for outcome in outcomes for question in outcome.questions]
        if asked:
            await self.asking.store(asked)
            raise AgentsWaiting

    async def soon_answered(self, asked: Sequence[NewQuestion]) -> bool:
        """Wait a moment for the answers to what a turn of a conversation asks: whoever talks to it may be there.

        Raises `AgentFailure` for a graph that asks again what it has been answered: it would do so for ever.
        """
        live = self.live
        assert live is not None  # noqa: S101  # it is a turn
        pauses = {question.pause for question in asked}
        if again := [question for question in asked if question.pause in self._answered]:
            error = InputError(f"asks again, after an answer: {again[0].asked.subject}", field="graph")
            raise AgentFailure(error, classify(error))
        self._answered |= pauses
        wait_until = asyncio.get_running_loop().time() + HOLD_SECONDS
        while not pauses <= (await self.asking.answers(live.turn.conversation, [*pauses])).keys():
            if asyncio.get_running_loop().time() > wait_until:
                return False
            await asyncio.sleep(0.1)
        self._resumes = True
        await live.go_on(self.database)
        return True

    @staticmethod
    def _outcome(
        observer: AgentObserver,
        state: str,
        output: Any,
        error: AgentFailure | None = None,
        questions: tuple[NewQuestion, ...] = (),
    ) -> AgentOutcome:
        return AgentOutcome(
            state, output, observer.model, observer.notice, observer.total_usage, observer.trace_id, error, questions
        )


def call_thread(thread: str, call: int) -> str:
    """The LangGraph thread of an agent's call, which counts from 1."""
    return thread if call == 1 else f"{thread}/{call}"
