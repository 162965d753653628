"""How a failure travels: from the model call that failed to Airflow's decision about the task's next try.

Whoever sees an error first knows most about it: which attempt it ended, which model was asked, what the policy decided.
The layers above need that knowledge, and must not decide a second time. So the layer that gives up raises an
`AgentFailure` in place of the original error:

1. `ModelCall` raises one when no further attempt at the call follows.
2. `run_with_policy` lets it pass, and raises one for every other error that ends a graph.
3. `AgentRunner` writes the error's row, unless there is one, and hands on a failure that says so (`recorded`).
4. From the triggerer a failure reaches the worker as JSON (`runtime/error_transfer.py`).
5. The operator gives Airflow the original error, which is what a DAG's author sees in logs, callbacks and retry
   policies. It keeps the failure for the product's own retry policy and listener (`visual_ai_retries.py`).

An error that does not come wrapped was raised outside of agents, and nothing has been decided or recorded about it.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backend.core.errors.category import Classified
from backend.core.errors.decision import Decision, Fail, Reschedule


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One failed attempt at a model call or a node, and the decision about it: for records, the stream and traces.

    `number` counts the attempts at the same call or node from 1. `model` is the one that was asked, if known. `context`
    is what helps to understand the error later, as JSON.
    """

    error: Exception
    classified: Classified
    decision: Decision
    number: int
    model: str | None
    context: Mapping[str, Any]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class AgentFailure(Exception):  # not an error of its own: it carries one
    """An agent, or a model call of one, failed with `error`, which is also the `__cause__`.

    `str()` is that of the original error.

    :param error: what happened.
    :param classified: what it is. `classify` returns this for the failure, and for whatever it caused.
    :param decision: what follows. Without one, the task's own `retries` decide unless the error is final.
    :param attempt: the attempt that the error ended, if it was one at a model call or a node.
    :param recorded: whether the error has its row in `workflow_errors`, so that nobody writes another one.
    """

    def __init__(
        self,
        error: Exception,
        classified: Classified,
        decision: Decision | None = None,
        *,
        attempt: FailedAttempt | None = None,
        recorded: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.__cause__ = error
        self.error: Final = error
        self.classified: Final = classified
        self.decision: Final[Decision] = decision if decision is not None else Fail(classified.final)
        self.attempt: Final = attempt
        self.recorded: Final = recorded

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.error!r})"

    def as_recorded(self) -> "AgentFailure":
        """The same failure, after its error's row was written."""
        if self.recorded:
            return self
        return AgentFailure(self.error, self.classified, self.decision, attempt=self.attempt, recorded=True)

    @property
    def reschedule_after(self) -> float | None:
        """Seconds after which the task goes on, when the error has to be waited out without a worker."""
        return self.decision.after if isinstance(self.decision, Reschedule) else None
