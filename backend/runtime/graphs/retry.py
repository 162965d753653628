"""Runs a graph under the error policy: waits out what passes by itself, and goes on at the node that failed.

This is for errors outside of the built-in agents' model calls: users' own graphs make their models themselves, and a
node is the smallest part of such a graph that can be run again without knowing it. What the model call has given up
arrives here as an `AgentFailure`, with the decision made, and passes through.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from tenacity import AsyncRetrying, RetryCallState
from tenacity.retry import retry_if_exception

from backend.core.exact_json import LARGEST, SizeLimit
from backend.core.workflow_error_handler import (
    TRANSIENT,
    AgentFailure,
    Classified,
    Decision,
    ErrorPolicy,
    Fail,
    FailedAttempt,
    FailureSignals,
    Retry,
    action_of,
    as_failure,
    classify,
    decide,
)
from backend.models.attempts import REAL_TIME, RetryTiming, error_context
from backend.observation.recording.observer import AgentObserver
from backend.observation.tracing.agent import within
from backend.runtime.graphs.pauses import Answers, Graph
from backend.runtime.graphs.run import no_answers, run_graph
from backend.runtime.turns.live import LiveTurn

log = logging.getLogger(__name__)


async def run_with_policy(
    graph: Graph,
    config: RunnableConfig,
    graph_input: Any,
    observer: AgentObserver,
    policy: ErrorPolicy,
    *,
    context: Mapping[str, Any] | None,
    resumes: bool,
    answers: Answers = no_answers,
    tokens: bool = True,
    mapping: Mapping[str, str] | None = None,
    largest: SizeLimit = LARGEST,
    timing: RetryTiming = REAL_TIME,
    live: LiveTurn | None = None,
) -> Any:
    """Return what `run_graph` returns; after a transient error of a node, wait as the policy says and go on there.

    Going on takes a checkpointer: without one a graph would have to start from the beginning, so no attempt follows.
    Raises `AgentFailure` with the last error and the decision about it. Nothing is recorded about that error yet.
    """
    attempts = _NodeAttempts(observer, policy, resumable=hasattr(graph.checkpointer, "aput"), draw=timing.draw)
    retrying = AsyncRetrying(
        sleep=timing.sleep, retry=retry_if_exception(attempts.goes_on), wait=attempts.wait, reraise=True
    )
    async for attempt in retrying:
        with attempt, within(observer.trace):
            try:
                return await run_graph(
                    graph,
                    config,
                    graph_input,
                    observer,
                    context=context,
                    resumes=resumes or attempts.failed,
                    answers=answers,
                    tokens=tokens,
                    mapping=mapping,
                    largest=largest,
                    live=live,
                )
            except AgentFailure:
                raise
            except Exception as error:
                failed = attempts.fail(error)
                if attempts.goes_on(error):
                    raise
                raise AgentFailure(error, failed.classified, failed.decision, attempt=failed) from error
    raise AssertionError("the loop returns or raises")


def record_failure(observer: AgentObserver, error: Exception, *, silent: bool = False) -> AgentFailure:
    """Record the error that ended an agent, unless it has its row already. Returns it as a recorded failure.

    An error that does not come as an `AgentFailure` was raised around the graph: the task's own `retries` decide what
    follows, unless it is final. A `silent` error is left out of the event stream.
    """
    failure = as_failure(error)
    if not failure.recorded:
        observer.failed(failure.classified, action_of(failure.decision), attempt=failure.attempt, silent=silent)
    return failure.as_recorded()


class _NodeAttempts:
    """The attempts at the nodes of one graph."""

    def __init__(
        self, observer: AgentObserver, policy: ErrorPolicy, *, resumable: bool, draw: Callable[[], float]
    ) -> None:
        self.failed = False
        """Whether an earlier attempt has started the graph."""
        self._observer = observer
        self._policy = policy
        self._resumable = resumable
        self._draw = draw
        self._history: list[FailureSignals] = []
        self._decision: Decision | None = None

    def goes_on(self, error: BaseException) -> bool:
        """Whether another attempt follows the error."""
        given_up = isinstance(error, AgentFailure) or not isinstance(error, Exception)
        return not given_up and isinstance(self._decision, Retry)

    def wait(self, _: RetryCallState) -> float:
        return self._decision.after if isinstance(self._decision, Retry) else 0.0

    def fail(self, error: Exception) -> FailedAttempt:
        classified, node = classify(error), self._observer.failed_node
        number = self._observer.attempts_at(node)
        if number == 1:  # the node has succeeded since its earlier failures
            self._history = [past for past in self._history if past.target != node]
        self._decision = decision = self._decide(error, classified, node)
        failed = FailedAttempt(error, classified, decision, number, self._observer.model, error_context(error))
        if isinstance(decision, Retry):
            log.info("attempt %s at the node %s failed (%s); next: %s", number, node, classified.category, decision)
            self.failed = True
            self._observer.restarted(failed)
        return failed

    def _decide(self, error: Exception, classified: Classified, node: str | None) -> Decision:
        if classified.category not in TRANSIENT:
            return Fail(classified.final)
        signals = FailureSignals.of(error, classified, node or "")
        decision = decide(self._policy, signals, self._history, draw=self._draw())
        self._history.append(signals)
        # An error outside of all nodes leaves no checkpoint from which to go on.
        can_go_on = self._resumable and node is not None
        return decision if can_go_on or not isinstance(decision, Retry) else Fail(final=False)
