"""Runs one agent for many inputs in one task, concurrently on one event loop.

Each input is an item with a LangGraph thread of its own (`<task's thread>/<index>`), its own trace and its own outcome:
one item's failure doesn't affect the others. The graph is compiled once, or twice when some inputs are pictures and
some are texts, because these use different models.

An item's outcome is a row of `batch_items`, written as soon as it is known. Memory therefore holds only the inputs, the
running items and a few hundred rows on their way to the database, however many items there are. The rows are also what
a retry resumes from: it skips items that have succeeded, resumes those that have checkpoints, and runs the others. A
batch whose agent or inputs differ from the earlier try's starts from nothing.

The stream reports the first `SHOWN_ITEMS` items one by one, and the batch as a whole twice a second.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Any, TextIO

from sqlalchemy import Connection

from backend.agents.config import check_texts
from backend.agents.registry import get_agent
from backend.checkpoints.batch_writer import SHARED_GATHER_SECONDS
from backend.core.exact_json import fingerprint_text
from backend.core.large_values import apart
from backend.core.workflow_error_handler import AgentFailure, Category, classify
from backend.db.outage import retry_until_available
from backend.db.questions import NewQuestion
from backend.db.runs import batch_items, executions, takeover, threads, traces
from backend.db.runs.traces import SHOWN_ITEMS
from backend.models.usage import Usage
from backend.observation.recording.observer import AgentObserver
from backend.observation.recording.records import Events
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.progress import BatchProgress
from backend.runtime.batch.results import RESULT_BYTES, RESULT_ITEMS, Results, ResultWriter, results_url
from backend.runtime.cancellation import RunCancelledError
from backend.runtime.forking import check_context, forked_spec, forked_task
from backend.runtime.gc_tuning import rare_collections
from backend.runtime.graphs.factory import Prepared, config_of
from backend.runtime.graphs.pauses import GraphPaused
from backend.runtime.graphs.retry import record_failure, run_with_policy
from backend.runtime.graphs.run import check_input
from backend.runtime.runner import AgentRunner, AgentsWaiting
from backend.runtime.specs import AgentSpec
from backend.runtime.waiting import UnansweredError

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""Time between two events about the batch as a whole."""
RECORDER_INTERVAL = 0.25
NAMED_FAILURES = 20

_STOPS: frozenset[Category] = frozenset({"auth", "quota", "budget"})
"""Errors that every other item would meet as well, like a rate limit that is to be waited out without a worker."""


class BatchFailedError(RuntimeError):
    """Items of a batch have failed. Its cause is the error that decides whether a retry helps."""

    def __init__(self, message: str, cause: Exception) -> None:
        super().__init__(message)
        self.__cause__ = cause


@dataclass(frozen=True, slots=True)
class _EarlierWork:
    """What earlier tries have left: items that are done, threads with checkpoints, and usage by item."""

    execution_id: str
    claim: threads.Claim
    done: set[int]
    known: set[str]
    used: dict[int | None, tuple[int, int, Any, int]]


class _Batch:
    """One try of a batch."""

    def __init__(self, runner: AgentRunner, spec: AgentSpec, inputs: Sequence[Any]) -> None:
        self._runner = runner
        self._spec = spec = forked_spec(spec, runner.task)
        self._inputs = inputs
        self._task = runner.task
        self._place = replace(runner.task.place(), agent=spec.name, agent_type=spec.type)
        self._progress = BatchProgress(len(inputs))
        self._cancelled = False
        self._prepared: dict[str | None, Prepared] = {}
        self._preparing = asyncio.Lock()

    async def run(self, plan: BatchPlan, write_to: Callable[[], TextIO] | None) -> dict[str, Any]:
        """Run the remaining items; returns the task's XCom."""
        runner, progress = self._runner, self._progress
        runner.recorder.relax(RECORDER_INTERVAL)
        await runner.open_budgets()
        digest = await apart(self._inputs, self._digest)
        earlier = await retry_until_available(partial(runner.database.run, self._begin, digest))
        names = [self._thread(index) for index in range(len(self._inputs))]
        if await runner.copy_forked(earlier.claim, names, digest, unaffected=names):
            known = await runner.database.run(batch_items.with_checkpoints, names)
            earlier = replace(earlier, known=known)
        await runner.watch(earlier.execution_id)
        await runner.begin_trace([self._spec])
        progress.succeeded = len(earlier.done)
        progress.used = Usage.sum(Usage(*used) for used in earlier.used.values())
        async with AsyncExitStack() as stack:
            await runner.open_checkpoints(earlier.claim, earlier.known, gather=SHARED_GATHER_SECONDS)
            if self._inputs:  # errors of the agent itself are raised before any item starts
                progress.model = (await self._prepare(self._input_of(0))).model
            results = ResultWriter(runner.database, earlier.execution_id, self._place, earlier.claim)
            stack.callback(results.abandon)
            left = (index for index in range(len(self._inputs)) if index not in earlier.done)
            stack.enter_context(rare_collections())
            await self._run_items(left, min(plan.max_concurrency, len(self._inputs)), earlier, results)
            await results.close()
        if progress.waiting and progress.stop is None:
            self._report("awaiting_input")
            raise AgentsWaiting
        failed = bool(progress.failures) and plan.on_item_error == "fail"
        self._report("failed" if failed or progress.stop else "success")
        if progress.stop is not None:
            raise progress.stop
        if failed:
            raise self._failure()
        stored = Results(runner.database, earlier.execution_id, self._place)
        result = await self._result(stored)
        if write_to is not None:
            await stored.write_lines(write_to)
        return result

    def _begin(self, connection: Connection, digest: str) -> _EarlierWork:
        task, place = self._task, self._place
        execution_id = executions.ensure(connection, task.run_state())
        takeover.close_lost(connection, [(execution_id, place)])
        names = [self._thread(index) for index in range(len(self._inputs))]
        request = threads.ClaimRequest(execution_id, task.thread_id, task.try_number, names, digest)
        claim = threads.begin_one(connection, request)
        follows = task.try_number > 1 or claim.resumes
        used = traces.used_before(connection, execution_id, place) if follows else {}
        if not claim.resumes:
            batch_items.supersede(connection, execution_id, place)
            return _EarlierWork(execution_id, claim, set(), set(), used)
        done = batch_items.done(connection, execution_id, place)
        left = [name for index, name in enumerate(names) if index not in done]
        known = batch_items.with_checkpoints(connection, left)
        log.info("resuming: %s of %s items are done, %s have checkpoints", len(done), len(names), len(known))
        return _EarlierWork(execution_id, claim, done, known, used)

    def _digest(self) -> str:
        digest = sha256(fingerprint_text(["batch", self._spec.type, self._spec.graph, self._spec.input_data]).encode())
        for item in self._inputs:
            digest.update(fingerprint_text(item).encode())
        return digest.hexdigest()

    def _thread(self, index: int) -> str:
        return f"{self._task.thread_id}/{index}"

    async def _run_items(self, left: Iterator[int], workers: int, earlier: _EarlierWork, results: ResultWriter) -> None:
        progress = self._progress

        async def work() -> None:
            for index in left:
                await self._runner.recorder.room()
                if progress.stop is not None:
                    return
                progress.running += 1
                try:
                    row = await self._run_item(index, earlier)
                finally:
                    progress.running -= 1
                if row is not None:
                    await results.add(row)

        ticker = asyncio.create_task(self._tick())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            ticker.cancel()

    def _input_of(self, index: int) -> Any:
        own = self._inputs[index]
        return {**(self._spec.input_data or {}), **own} if isinstance(own, Mapping) else own

    async def _prepare(self, input_data: Any) -> Prepared:
        """The compiled graph for an input: one for all inputs, or one for pictures and one for texts."""
        purpose = None if self._spec.graph is not None else get_agent(self._spec.type).purpose_for(input_data)
        async with self._preparing:
            if purpose not in self._prepared:
                made = self._prepared[purpose] = await self._runner.prepare(self._spec, purpose)
                check_context(made.graph, self._spec, self._task)
        return self._prepared[purpose]

    async def _run_item(self, index: int, earlier: _EarlierWork) -> dict[str, Any] | None:
        """Run one item; returns its row, or None if it waits for people."""
        spec, thread, input_data = self._spec, self._thread(index), self._input_of(index)
        prepared = await self._prepare(input_data)
        brief = index >= SHOWN_ITEMS
        trace_id, trace_url, spans = self._runner.trace.item(thread, index, spec.name, spec.type)
        if spans is not None and prepared.definition is None:
            spans.uses(prepared.graph)
        observer = AgentObserver(
            self._runner.recorder,
            replace(self._place, item=index),
            model=prepared.model,
            trace_id=trace_id,
            trace_url=trace_url,
            trace=spans,
            brief=brief,
        )
        if prepared.definition is not None:
            observer.uses(prepared.model or "", prepared.notice)
        if (used := earlier.used.get(index)) is not None:
            observer.used_before(Usage(*used))
        config = config_of(spec, thread)
        config["callbacks"] = self._runner.callbacks(observer)
        began = time.monotonic()
        observer.begin(input_data)
        try:
            await check_input(input_data, self._runner.graphs.largest_input)
            config["recursion_limit"] = self._runner.graphs.step_limit(prepared.graph, spec)
            if prepared.definition is not None:
                prepared.definition.check_input(input_data)
                check_texts(input_data, self._runner.graphs.max_text_chars)
            own = prepared.definition is None
            given = await self._runner.graphs.with_pictures(input_data) if own else input_data
            if forked_task(self._task) is not None:
                await self._runner.prepare_state(prepared.graph, config, given)
            async with asyncio.timeout(spec.timeout):
                output = await run_with_policy(
                    prepared.graph,
                    config,
                    given,
                    observer,
                    self._runner.graphs.policy_of(spec),
                    context=spec.context,
                    resumes=thread in earlier.known,
                    answers=self._runner.asking.answers,
                    tokens=False,
                    mapping=spec.output_mapping,
                    largest=self._runner.graphs.largest_output,
                    timing=self._runner.graphs.timing,
                )
        except GraphPaused as paused:
            if not paused.pauses:
                return self._failed(index, observer, self._runner.asking.cannot_wait(), began)
            asked = [NewQuestion(thread, one.id, spec.name, one.node, one.asked, index) for one in paused.pauses]
            if closed := await self._runner.asking.store(asked):
                return self._failed(index, observer, UnansweredError(closed[0]), began)
            observer.finish("awaiting_input", None)
            self._progress.waiting += 1
            return None
        except Exception as error:
            if isinstance(error, TimeoutError) and spec.timeout is not None:
                error = TimeoutError(f"{spec.name}[{index}] took longer than its timeout of {spec.timeout:g} s")
            return self._failed(index, observer, error, began)
        except asyncio.CancelledError:
            if self._runner.cancelled and not self._cancelled:  # one error row for all items
                self._cancelled = True
                observer.failed(classify(RunCancelledError()), "fail")
            observer.finish("cancelled", None)
            raise
        observer.finish("success", output)
        self._progress.succeeded += 1
        return self._row(index, observer, began, "success", output)

    def _failed(self, index: int, observer: AgentObserver, error: Exception, began: float) -> dict[str, Any]:
        progress = self._progress
        progress.failed += 1
        failure = record_failure(observer, error, silent=progress.failed > SHOWN_ITEMS)
        found = failure.classified
        if len(progress.failures) < NAMED_FAILURES:
            progress.failures.append((index, failure))
        if not found.final and progress.retryable is None:
            progress.retryable = failure
        stops = found.category in _STOPS or failure.reschedule_after is not None
        if stops and progress.stop is None:
            progress.stop = failure
        observer.finish("failed", None)
        return {
            **self._row(index, observer, began, "failed", None),
            "error": f"{found.exception_type}: {found.message}",
            "category": found.category,
        }

    def _row(self, index: int, observer: AgentObserver, began: float, state: str, output: Any) -> dict[str, Any]:
        used = observer.total_usage
        self._progress.used = Usage.sum([self._progress.used, observer.usage])
        self._progress.model = self._progress.model or observer.model
        return {
            "item_index": index,
            "state": state,
            "output": output,
            "error": None,
            "category": None,
            "model": observer.model,
            "input_tokens": used.input_tokens,
            "output_tokens": used.output_tokens,
            "cost_usd": used.cost if used.calls else None,
            "latency_ms": round((time.monotonic() - began) * 1000, 3),
            "trace_id": observer.trace_id,
            "trace_url": observer.trace_url,
        }

    async def _tick(self) -> None:
        while True:
            self._report("running")
            await asyncio.sleep(PROGRESS_SECONDS)

    def _report(self, state: str) -> None:
        event = self._progress.changes(self._place, state)
        if event is not None:
            self._runner.recorder.put(Events([event]))

    def _failure(self) -> AgentFailure:
        progress = self._progress
        named = "; ".join(f"[{index}] {failure.classified.message[:200]}" for index, failure in progress.failures[:5])
        more = f"; and {progress.failed - 5} more" if progress.failed > 5 else ""
        cause = progress.retryable or progress.failures[0][1]
        error = BatchFailedError(f"{progress.failed} of {progress.items} items failed: {named}{more}", cause.error)
        return AgentFailure(error, classify(error), recorded=True)

    async def _result(self, results: Results) -> dict[str, Any]:
        progress = self._progress
        counts = await results.count()
        result: dict[str, Any] = {
            "batch": {
                "items": progress.items,
                "succeeded": counts.succeeded,
                "failed": counts.failed,
                "failures": [
                    {"index": index, "category": item.classified.category, "error": item.classified.message[:500]}
                    for index, item in progress.failures
                ],
            },
            "agent": self._spec.name,
            "model": progress.model,
            "usage": {"input_tokens": progress.used.input_tokens, "output_tokens": progress.used.output_tokens},
            "cost_usd": progress.used.cost_usd,
            "results_url": results_url(self._task),
            "trace_id": self._runner.trace.id,
            "trace_url": self._runner.trace.url,
            "attempts": self._task.try_number,
        }
        if progress.items <= RESULT_ITEMS and counts.output_bytes <= RESULT_BYTES:
            result["results"] = await results.outputs(progress.items)
        return result


async def run_batch(
    runner: AgentRunner,
    spec: AgentSpec,
    inputs: Sequence[Any],
    plan: BatchPlan,
    *,
    write_to: Callable[[], TextIO] | None = None,
) -> dict[str, Any]:
    """Run one agent for each of `inputs`; returns the task's XCom.

    An item's input is merged over the spec's `input_data`. `write_to` opens a file to which all items are written as
    JSON lines.

    With `on_item_error="fail"`, raises an `AgentFailure` with `BatchFailedError` once all items have ended, if any has
    failed; a retry helps if it helps one of them. An error that every other item would meet as well (authentication,
    quota, budget) ends the batch as soon as the running items have ended, and is raised. When items wait for people,
    all others come to their end, and `AgentsWaiting` is raised; items that failed run again once the batch goes on. A
    batch needs the database, because its results are rows: raises `sqlalchemy.exc.OperationalError` without it (a retry
    helps).
    """
    result = await _Batch(runner, spec, inputs).run(plan, write_to)
    runner.keep_result(result)
    return result
