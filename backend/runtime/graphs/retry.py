"""Runs a graph under the error policy: what passes by itself is waited out, and the graph goes on at the failed node.

It is for what fails outside the model calls that are ours: users' own graphs make their models themselves. A call of
ours that was given up is decided on already and comes through as it is.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig
from tenacity import AsyncRetrying, RetryCallState
from tenacity.retry import retry_if_exception

from backend.core.workflow_error_handler import (
    TRANSIENT,
    Action,
    Classified,
    Decision,
    ErrorPolicy,
    Fail,
    Failure,
    Retry,
    action_of,
    classify,
    decide,
    decision_on,
    facts_of,
    mark,
    wait_asked_for,
)
from backend.models.attempts import REAL_TIME, FailedAttempt, Pace, attempt_on, end_with, error_context
from backend.observation.recording.observer import AgentObserver
from backend.observation.tracing.agent import within
from backend.runtime.graphs.run import Graph, run_graph

log = logging.getLogger(__name__)


async def run_with_policy(
    graph: Graph,
    config: RunnableConfig,
    given: Any,
    observer: AgentObserver,
    policy: ErrorPolicy,
    *,
    context: Mapping[str, Any] | None,
    going_on: bool,
    tokens: bool = True,
    pace: Pace = REAL_TIME,
) -> Any:
    """What `run_graph` returns. After a transient error of a node it waits as the policy says and goes on at that node.

    That takes a checkpointer: without one a graph would have to begin anew, and its errors are raised as they are.
    Raises the last error; where it is to be waited out elsewhere it says so.
    """
    attempts = _Attempts(observer, policy, resumable=hasattr(graph.checkpointer, "aput"), draw=pace.draw)
    retrying = AsyncRetrying(
        sleep=pace.sleep, retry=retry_if_exception(attempts.goes_on), wait=attempts.wait, reraise=True
    )
    async for attempt in retrying:
        with attempt, within(observer.trace):
            try:
                return await run_graph(
                    graph,
                    config,
                    given,
                    observer,
                    context=context,
                    going_on=going_on or attempts.failed,
                    tokens=tokens,
                )
            except Exception as error:
                attempts.fail(error)
                raise
    raise AssertionError("the loop returns or raises")


def tell_failure(observer: AgentObserver, error: Exception, *, silent: bool = False) -> Classified:
    """Record the error that ended an agent, unless it is recorded; says what it is."""
    found = classify(error)
    if not getattr(error, "visual_ai_recorded", False):
        observer.failed(found, _action(error, found), attempt=attempt_on(error), silent=silent)
    error.visual_ai_recorded = True  # type: ignore[attr-defined]  # read by the listener
    return found


def _action(error: Exception, found: Classified) -> Action:
    decision = decision_on(error)
    if decision is not None:
        return action_of(decision)
    return "fail" if found.final else "task_retry"


class _Attempts:
    """The attempts at the nodes of one graph."""

    def __init__(
        self, observer: AgentObserver, policy: ErrorPolicy, *, resumable: bool, draw: Callable[[], float]
    ) -> None:
        self.failed = False
        """Whether the graph was begun already."""
        self._observer = observer
        self._policy = policy
        self._resumable = resumable
        self._draw = draw
        self._history: list[Failure] = []
        self._decision: Decision | None = None

    def goes_on(self, error: BaseException) -> bool:
        """Whether another attempt follows."""
        return isinstance(error, Exception) and isinstance(self._decision, Retry)

    def wait(self, _: RetryCallState) -> float:
        """Seconds until it does."""
        return self._decision.after if isinstance(self._decision, Retry) else 0.0

    def fail(self, error: Exception) -> None:
        """Decide what follows an error, unless that was decided where it happened."""
        self._decision = None
        if decision_on(error) is not None:
            return
        found, node = classify(error), self._observer.failed_node
        number = self._observer.attempts_at(node)
        if number == 1:  # what the node failed of before, it has got past
            self._history = [past for past in self._history if past.subject != node]
        self._decision = decision = self._decide(error, found, node)
        failed = FailedAttempt(error, decision, number, self._observer.model, error_context(error))
        if isinstance(decision, Retry):
            log.info("attempt %s at the node %s: %s, then %s", number, node, found.category, decision)
            self.failed = True
            self._observer.restarted(failed)
        else:
            mark(error, decision)
            end_with(failed)

    def _decide(self, error: Exception, found: Classified, node: str | None) -> Decision:
        if found.category not in TRANSIENT:
            return Fail(found.final)
        facts = facts_of(error)
        words = f"{found.message} {facts.message}"
        failure = Failure(
            category=found.category,
            subject=node or "",
            retry_after=getattr(error, "retry_after", None)
            or wait_asked_for(facts.headers, words)
            or facts.advised_wait,
            hopeless=facts.headers.get("x-should-retry") == "false",
        )
        decision = decide(self._policy, failure, self._history, draw=self._draw())
        self._history.append(failure)
        # Outside of nodes nothing is known to have come to its end.
        can_go_on = self._resumable and node is not None
        return decision if can_go_on or not isinstance(decision, Retry) else Fail(final=False)
