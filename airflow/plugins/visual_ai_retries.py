"""When a task whose agents failed is tried again: the retry policy of both operators, and the way out of a worker.

Airflow 3.3 asks a retry policy in the worker, with the exception, and lets it choose the delay; but it can't give a
task more tries than its `retries` allow. A wait that agents can't sit out in the worker therefore takes one of two
ways, both of which free the worker's slot at once and go on from the checkpoint:

- As long as the task has a retry left, it is `up_for_retry` with the delay that was asked for.
- With `retries=0`, or when they are used up, it is `up_for_reschedule`, at most `MAX_RESCHEDULES` times: the same try
  goes on later, as that of a sensor does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowRescheduleException

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["MAX_RESCHEDULES", "AgentRetryPolicy", "leave_worker"]

MAX_RESCHEDULES = 20
"""How often one try of a task may leave its worker without using up a retry."""


class AgentRetryPolicy(RetryPolicy):
    """What both operators use unless their task names a policy of its own.

    An error that the same request would meet again fails the task, whatever its `retries` say. A rate limit that has to
    be waited out elsewhere delays the retry for as long as the provider asks. All else follows the task's own `retries`
    and `retry_delay`.
    """

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002  # prescribed
        max_tries: int,  # noqa: ARG002  # prescribed
        context: Context | None = None,  # noqa: ARG002  # prescribed
    ) -> RetryDecision:
        """Called in the task's process when it has failed."""
        from backend.core.workflow_error_handler import classify, reschedule_after

        found = classify(exception)
        after = reschedule_after(exception)
        if after is not None:
            return RetryDecision.retry(timedelta(seconds=after), f"{found.category}: again in {after:g} s")
        if found.final:
            return RetryDecision.fail(f"{found.category}: a retry can't help")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """It has nothing to set."""
        return {"__type": f"{type(self).__module__}.{type(self).__qualname__}"}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> AgentRetryPolicy:  # noqa: ARG003  # prescribed
        """The policy again."""
        return cls()


def leave_worker(context: Context, error: Exception) -> None:
    """Reschedule the task if the error has to be waited out elsewhere and no retry is left to wait for.

    Raises `AirflowRescheduleException` then. Otherwise the error itself meets the task's retry policy.
    """
    from backend.core.workflow_error_handler import reschedule_after

    after = reschedule_after(error)
    if after is None or _retry_left(context) or int(context.get("task_reschedule_count") or 0) >= MAX_RESCHEDULES:
        return
    raise AirflowRescheduleException(datetime.now(UTC) + timedelta(seconds=after)) from error  # type: ignore[no-untyped-call]  # Airflow's


def _retry_left(context: Context) -> bool:
    """As Airflow's API server reckons it."""
    instance: Any = context["ti"]
    max_tries = int(getattr(instance, "max_tries", 0) or 0)
    return max_tries != 0 and instance.try_number <= max_tries
