"""States of runs and task instances, and the rules for merging what several sources report about them.

The names are Airflow's; runs can also be `cancelled` or `awaiting_input`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

RunState = Literal["queued", "running", "success", "failed", "cancelled", "awaiting_input"]
RUN_STATES: tuple[RunState, ...] = ("queued", "running", "success", "failed", "cancelled", "awaiting_input")
TERMINAL_RUN_STATES = frozenset({"success", "failed", "cancelled"})
ACTIVE_RUN_STATES = frozenset(RUN_STATES) - TERMINAL_RUN_STATES

TERMINAL_TASK_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
FAILED_TASK_STATES = frozenset({"failed", "upstream_failed"})
ACTIVE_TASK_STATES = frozenset(
    {"scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"}
)
"""A task in one of these states continues by itself."""

# The order of the states of one try of a task; `running` and `deferred` may alternate.
_RANK = {
    None: 0,
    "scheduled": 1,
    "queued": 2,
    "running": 3,
    "deferred": 3,
    "up_for_reschedule": 3,
    "restarting": 4,
    "up_for_retry": 5,
}
_TERMINAL_RANK = 6


@dataclass(frozen=True, slots=True)
class TaskState:
    """The state of one task instance. Times are timezone-aware; `duration` is in seconds."""

    task_id: str
    map_index: int
    try_number: int
    state: str | None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration: float | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Identifies the task instance within its run."""
        return (self.task_id, self.map_index)

    @property
    def rank(self) -> int:
        """How far the try has got; a higher number is later."""
        return _TERMINAL_RANK if self.state in TERMINAL_TASK_STATES else _RANK.get(self.state, 3)

    @property
    def at_work(self) -> bool:
        """Whether the try is running or has finished."""
        return self.state == "running" or self.state in TERMINAL_TASK_STATES

    def payload(self) -> dict[str, Any]:
        """The data of a `task_update` event."""
        return {
            "task_id": self.task_id,
            "map_index": self.map_index,
            "state": self.state,
            "try_number": self.try_number,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "duration": self.duration,
        }


def merge_task(known: TaskState | None, seen: TaskState, *, authoritative: bool) -> TaskState | None:
    """The state of a task instance after a report (`seen`), or None if nothing has changed.

    A notification (`authoritative=False`) can arrive late or twice, so it only moves a try forward or starts a later
    one. A list read from Airflow after the known state was written (`authoritative=True`) takes precedence: only
    Airflow knows that a task was cleared or that its state was set by hand. There are two exceptions: Airflow calls a
    try `running` until its process has exited, some time after the try itself has reported its result, and `deferred`
    all the time that it is working in the triggerer.
    """
    if known is None:
        return seen
    same_try = seen.try_number == known.try_number
    if same_try and seen.state == "running" and known.state in TERMINAL_TASK_STATES:
        return None
    if same_try and authoritative and seen.state == "deferred" and known.at_work:
        return None
    if not authoritative:
        if seen.try_number < known.try_number:
            return None
        # `running` and `deferred` share a rank, within which the later report counts.
        if same_try and seen.rank < known.rank:
            return None
    merged = TaskState(
        seen.task_id,
        seen.map_index,
        seen.try_number,
        seen.state,
        seen.started_at or (known.started_at if same_try else None),
        seen.finished_at,
        seen.duration,
    )
    changed = (merged.state, merged.try_number) != (known.state, known.try_number)
    # The clocks of Airflow and of a worker differ by microseconds: a different time alone is no change.
    return merged if changed else None


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a run is done; `percent` is between 0 and 100."""

    total: int
    done: int
    percent: int


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """How many task instances of a run are known, and how many of them are in which state."""

    listed: int = 0
    succeeded: int = 0
    skipped: int = 0
    active: int = 0
    awaiting_input: int = 0

    def run_state(self, state: str) -> str:
        """`state`, or `awaiting_input` for a run in which nothing can go on until a person answers.

        Airflow calls such a run `running`.
        """
        if state not in ("running", "awaiting_input"):
            return state
        return "awaiting_input" if self.awaiting_input and not self.active else "running"


def measure_progress(counts: TaskCounts, *, run_state: str, known_total: int, known_percent: int) -> Progress:
    """The progress of a run: the share of its task instances that have succeeded or were skipped.

    If the run failed or was cancelled, only those that succeeded count as done: Airflow marks what such a run never
    reached as skipped. If it succeeded, all count, even if it tolerated some failures. Progress never falls below
    `known_percent`. Only a run that succeeded reaches 100, as task mapping may add task instances while it is active.
    """
    total = max(known_total, counts.listed)
    if run_state == "success":
        return Progress(total, total, 100)
    done = counts.succeeded + (0 if run_state in ("failed", "cancelled") else counts.skipped)
    percent = min(99, done * 100 // total) if total else 0
    return Progress(total, done, max(percent, known_percent))
