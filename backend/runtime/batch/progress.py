"""How a batch stands, and what the stream tells of it."""

from dataclasses import dataclass, field

from backend.core.events import NewEvent
from backend.core.workflow_error_handler import AgentFailure
from backend.db.runs.traces import Place
from backend.models.usage import Usage


@dataclass(slots=True)
class BatchProgress:
    """Counts of one try of a batch, those of earlier tries included."""

    items: int
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    failures: list[tuple[int, AgentFailure]] = field(default_factory=list)
    """The first ones."""
    retryable: AgentFailure | None = None
    """The first error that another try may get past."""
    stop: AgentFailure | None = None
    """The error that every further item would meet."""
    used: Usage = field(default_factory=Usage)
    model: str | None = None
    _told: tuple[int, ...] = ()

    def add_usage(self, used: Usage) -> None:
        """Count what an item used."""
        self.used = Usage.sum([self.used, used])

    def news(self, place: Place, state: str) -> NewEvent | None:
        """An event about the batch as a whole; None while it runs and has nothing new to say."""
        now = (self.succeeded, self.failed, self.running)
        if state == "running" and now == self._told:
            return None
        self._told = now
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
            },
        }
        return NewEvent("agent_update", payload)
