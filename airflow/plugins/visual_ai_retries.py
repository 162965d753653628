"""Decides when a task whose agents failed is retried: the operators' retry policy, and the way out of a worker.

Airflow 3.3 asks a retry policy in the worker, with the exception, and lets it choose the delay; but a policy can't give
a task more tries than its `retries` allow. So a wait that is too long for the worker takes one of two ways. Both free
the worker's slot at once and go on from the checkpoint:

- As long as the task has a retry left, it is `up_for_retry` with the delay that the provider asked for.
- With `retries=0`, or when they are used up, it is `up_for_reschedule`, at most `MAX_RESCHEDULES` times: the same try
  goes on later, as that of a sensor does.

Airflow gets the original exception, which is what a DAG's author expects in logs, callbacks and retry policies. What
was decided about it is in the `AgentFailure` that the operator keeps; `failure_behind` finds it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowRescheduleException

from backend.core.workflow_error_handler import AgentFailure, classify

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["MAX_RESCHEDULES", "AgentRetryPolicy", "failure_behind", "leave_worker"]

MAX_RESCHEDULES = 20
"""How often one try of a task may leave its worker without using up a retry."""


@runtime_checkable
class _RunsAgents(Protocol):
    """An operator that knows which failure of its agents it raised an exception for."""

    def failure_behind(self, error: BaseException) -> BaseException: ...


def failure_behind(task: object, error: BaseException) -> BaseException:
    """The agents' failure for which a task raised `error` to Airflow; `error` itself if there is none."""
    return task.failure_behind(error) if isinstance(task, _RunsAgents) else error


class AgentRetryPolicy(RetryPolicy):
    """The retry policy of both operators, unless their task names one of its own.

    An error that the same request would meet again fails the task, whatever its `retries` say. A rate limit that is too
    long to be waited out in the worker delays the retry for as long as the provider asks. Everything else follows the
    task's own `retries` and `retry_delay`.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # prescribed
        max_tries: int,  # noqa: ARG002  # prescribed
        context: Context | None = None,
    ) -> RetryDecision:
        """Airflow calls this in the task's process after the task has failed."""
        error = failure_behind((context or {}).get("task"), exception)
        classified = classify(error)
        after = error.reschedule_after if isinstance(error, AgentFailure) else None
        if after is not None:
            return RetryDecision.retry(timedelta(seconds=after), f"{classified.category}: again in {after:g} s")
        if classified.final:
            return RetryDecision.fail(f"{classified.category}: a retry can't help")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """The policy has no parameters."""
        return {"__type": f"{type(self).__module__}.{type(self).__qualname__}"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AgentRetryPolicy:  # noqa: ARG003  # prescribed
        """Restore the policy."""
        return cls()


def leave_worker(context: Context, failure: AgentFailure) -> None:
    """Reschedule the task if the failure has to be waited out elsewhere and the task has no retry left to do so.

    Raises `AirflowRescheduleException` in that case. Otherwise the task's retry policy decides what follows.
    """
    after = failure.reschedule_after
    if after is None or _retry_left(context) or int(context.get("task_reschedule_count") or 0) >= MAX_RESCHEDULES:
        return
    raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=after)) from failure.error  # type: ignore[no-untyped-call]  # Airflow's


def _retry_left(context: Context) -> bool:
    """Whether the task has a retry left, by the rule of Airflow's API server."""
    instance: Any = context["ti"]
    max_tries = int(getattr(instance, "max_tries", 0) or 0)
    return max_tries != 0 and instance.try_number <= max_tries
