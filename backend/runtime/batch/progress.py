"""The progress of a batch, and the events that report it."""

from dataclasses import dataclass, field

from backend.core.events import NewEvent
from backend.core.workflow_error_handler import AgentFailure
from backend.db.runs.traces import Place
from backend.models.usage import Usage


@dataclass(slots=True)
class BatchProgress:
    """The counts of a batch, including those of earlier tries."""

    items: int
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    failures: list[tuple[int, AgentFailure]] = field(default_factory=list)
    """The first failures: the index of the item, and the error."""
    retryable: AgentFailure | None = None
    """The first error that a retry may overcome."""
    stop: AgentFailure | None = None
    """The error that every other item would meet as well."""
    used: Usage = field(default_factory=Usage)
    model: str | None = None
    _reported: tuple[int, ...] = ()

    def changes(self, place: Place, state: str) -> NewEvent | None:
        """An event about the batch as a whole; None while it runs and nothing has changed since the last one."""
        now = (self.succeeded, self.failed, self.running, self.waiting)
        if state == "running" and now == self._reported:
            return None
        self._reported = now
        payload = {
            "task_id": place.task_id,
            "map_index": place.map_index,
            "try_number": place.try_number,
            "agent": place.agent,
            "type": place.agent_type,
            "node": None,
            "state": state,
            "model": self.model,
            "input_tokens": self.used.input_tokens,
            "output_tokens": self.used.output_tokens,
            "cost_usd": self.used.cost_usd,
            "latency_ms": None,
            "notice": None,
            "batch": {
                "items": self.items,
                "succeeded": self.succeeded,
                "failed": self.failed,
                "running": self.running,
                "waiting": self.waiting,
            },
        }
        return NewEvent("agent_update", payload)
