"""The kinds of records, and the transaction that writes those of many tasks at once.

A record is one thing that happened in one try of a task. Each kind knows how to write itself: `claim` runs first, for
all records of a transaction, and `add` then adds the record to what the transaction writes. Rows of the same table are
gathered there and written by one statement, and events are appended last, so that a transaction takes about ten
statements however many records it holds.

A try that has lost its thread to another one keeps its rows (they happened, and were paid for), but appends no events
and changes neither states nor results: these belong to the try that holds the thread.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.core.turns import Frame
from backend.db.conversations import frames, states, turns
from backend.db.conversations.states import NewState
from backend.db.limits import usage as limit_usage
from backend.db.runs import events, executions, observations, results, takeover, threads, traces
from backend.db.runs.events import TryEvents
from backend.db.runs.executions import RunState
from backend.db.runs.observations import ObservedChanges, RunObservation
from backend.db.runs.results import TaskResult
from backend.db.runs.threads import Claim, ClaimRequest, SupersededError
from backend.db.runs.traces import Place


class RecordSource(Protocol):
    """The try of a task that reports records: a `Recorder`."""

    place: Place
    run: RunState
    thread_id: str
    execution_id: str | None
    claim: Claim | None
    superseded: bool

    def settle(self, records: int, *, dropped: bool = False) -> None:
        """This many of its records are written, or can't be."""


class Record(ABC):
    """Something that happened in a try of a task."""

    def claim(self, batch: "RecordBatch", source: RecordSource) -> None:  # noqa: B027  # most kinds claim nothing
        """Ask for what the source needs before anything of it is written."""

    @abstractmethod
    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        """Add the record to what the transaction writes."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody needs the record any more."""
        return False

    @property
    def dispensable(self) -> bool:
        """Whether the record is left out when far too many wait: a result, a cost, an error or an end never is."""
        return False

    def fail(self, error: Exception) -> None:  # noqa: B027  # most kinds have nobody who waits for them
        """The record can't be written."""


Entry = tuple[RecordSource, Record]


@dataclass(frozen=True, slots=True)
class Events(Record):
    """Events of the run's timeline, and nothing else."""

    events: Sequence[NewEvent]

    @property
    def dispensable(self) -> bool:
        return True

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        batch.reported[source] += self.events


@dataclass(frozen=True, slots=True)
class RowsWithEvents(Record):
    """Rows that `write` inserts or updates for the execution of a given id; it may return events that report them."""

    write: Callable[[Connection, str], Sequence[NewEvent] | None]

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        batch.reported[source] += self.write(batch.connection, batch.report.ids[source]) or ()


@dataclass(frozen=True, slots=True)
class TraceRow(Record):
    """The present state of a row of `agent_traces`. `values` makes the row, when it is written."""

    values: Callable[[], dict[str, Any]]
    event: NewEvent | None = None
    dispensable: bool = False

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        batch.trace_rows.append({**self.values(), "execution_id": batch.report.ids[source]})
        if self.event is not None:
            batch.reported[source].append(self.event)


@dataclass(frozen=True, slots=True)
class RunUsage(Record):
    """Tokens and cost (US dollars, None when unknown) to add to the run's totals, and the ids of the model calls."""

    input_tokens: int
    output_tokens: int
    cost: Decimal | None
    calls: Sequence[str] = ()

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        used = {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens, "cost_usd": self.cost}
        batch.usage.append({"id": batch.report.ids[source], **used})
        batch.calls += self.calls


@dataclass(frozen=True, slots=True)
class StateChange(Record):
    """The state of a task that Airflow calls no listener for."""

    state: TaskState

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        batch.reported[source].append(self.state)


@dataclass(frozen=True, slots=True)
class RunResult(Record):
    """What the task returns, as the run's result; of a mapped task, as one of a list."""

    result: Mapping[str, Any]

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        if source not in batch.report.superseded:
            place = source.place
            batch.results.append(TaskResult(batch.report.ids[source], self.result, place.task_id, place.map_index))


@dataclass(frozen=True, slots=True)
class TurnNews(Record):
    """What a turn of a conversation streams, what LangGraph says of its checkpoints, and the turn's new state."""

    conversation_id: str
    turn_id: str
    frames: Sequence[Frame] = ()
    states: Sequence[NewState] = ()
    state: str | None = None

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        if source not in batch.report.superseded:
            batch.turns.append(self)


@dataclass(frozen=True, slots=True)
class ThreadClaim(Record):
    """Takes the task's thread for this try, and closes what an earlier try left open.

    `answer` is called after the transaction, with the claim or with what made it impossible. `given_up` says whether
    anybody still waits for it.
    """

    agents: Sequence[str]
    input_hash: str
    instance: str | None
    answer: Callable[[Claim | Exception], None]
    given_up: Callable[[], bool]

    def claim(self, batch: "RecordBatch", source: RecordSource) -> None:
        batch.claims[source] = self

    def add(self, batch: "RecordBatch", source: RecordSource) -> None:
        """Nothing: the thread is taken before anything is written."""

    @property
    def abandoned(self) -> bool:
        return self.given_up()

    def fail(self, error: Exception) -> None:
        self.answer(error)

    def request(self, source: RecordSource, execution_id: str) -> ClaimRequest:
        number = source.place.try_number
        return ClaimRequest(execution_id, source.thread_id, number, self.agents, self.input_hash, self.instance)


@dataclass(slots=True)
class WriteReport:
    """What became of the entries. Those that are neither postponed nor of a missing execution are written."""

    ids: dict[RecordSource, str]
    """The id of each source's execution."""
    postponed: list[Entry] = field(default_factory=list)
    """Another transaction has the execution locked: to be written later, in the same order."""
    missing: list[RecordSource] = field(default_factory=list)
    """Sources whose execution doesn't exist any more."""
    claims: list[tuple[ThreadClaim, Claim | SupersededError]] = field(default_factory=list)
    superseded: set[RecordSource] = field(default_factory=set)
    """Sources that don't hold their threads any more."""


def write_records(connection: Connection, entries: Sequence[Entry], *, wait: bool) -> WriteReport:
    """Write records of any number of tasks in few statements, each task's records in order.

    Without `wait`, records of executions that another transaction has locked are postponed, so that no task waits for
    another run's lock. Raises what the database refuses, also when two sources claim the same thread; fewer records may
    then succeed.
    """
    sources = list(dict.fromkeys(source for source, _ in entries))
    unknown = [source for source in sources if source.execution_id is None]
    made = executions.ensure_all(connection, [source.run for source in unknown]) if unknown else {}
    ids = {source: source.execution_id or made[source.run.dag_id, source.run.dag_run_id] for source in sources}
    locked = executions.lock(connection, ids.values(), wait=wait)
    waiting = {source for source in sources if locked.get(ids[source]) is False}
    report = WriteReport(
        ids,
        postponed=[entry for entry in entries if entry[0] in waiting],
        missing=[source for source in sources if ids[source] not in locked],
    )
    due = [entry for entry in entries if entry[0] not in waiting and ids[entry[0]] in locked]
    RecordBatch(connection, report, due).write()
    return report


class RecordBatch:
    """What one transaction writes. Its executions are locked."""

    def __init__(self, connection: Connection, report: WriteReport, entries: Sequence[Entry]) -> None:
        self.connection = connection
        self.report = report
        self._entries = entries
        self.claims: dict[RecordSource, ThreadClaim] = {}
        self.trace_rows: list[dict[str, Any]] = []
        self.usage: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.results: list[TaskResult] = []
        self.turns: list[TurnNews] = []
        self.reported: dict[RecordSource, list[NewEvent | TaskState]] = {source: [] for source, _ in entries}
        """What each source reports to the run's timeline, in order."""

    def write(self) -> None:
        for source, record in self._entries:
            record.claim(self, source)
        self.report.superseded = self._superseded(self._take_threads())
        for source, record in self._entries:
            record.add(self, source)
        traces.write(self.connection, self.trace_rows)
        executions.add_usage(self.connection, self.usage)
        results.record(self.connection, self.results)
        self._append_events()
        self._write_turns()
        # Last, because runs of the same user wait for each other here.
        limit_usage.add(self.connection, self.usage, self.calls)

    def _write_turns(self) -> None:
        of_turn: dict[tuple[str, str], list[TurnNews]] = {}
        for one in self.turns:
            of_turn.setdefault((one.conversation_id, one.turn_id), []).append(one)
        for (conversation_id, turn_id), news in sorted(of_turn.items()):
            said = [state for one in news for state in one.states]
            if said:
                states.write(self.connection, conversation_id, said)
            new = [frame for one in news for frame in one.frames]
            if new:
                frames.append(self.connection, conversation_id, turn_id, new)
            for one in news:
                if one.state is not None:
                    turns.change(self.connection, turn_id, one.state)

    def _take_threads(self) -> dict[RecordSource, Claim | SupersededError]:
        if not self.claims:
            return {}
        ids = self.report.ids
        takeover.close_lost(self.connection, [(ids[source], source.place) for source in self.claims])
        requests = [record.request(source, ids[source]) for source, record in self.claims.items()]
        claimed = dict(zip(self.claims, threads.begin(self.connection, requests), strict=True))
        self.report.claims = [(self.claims[source], claim) for source, claim in claimed.items()]
        return claimed

    def _superseded(self, claimed: Mapping[RecordSource, Claim | SupersededError]) -> set[RecordSource]:
        earlier = {
            source: source.claim
            for source in self.reported
            if source.claim is not None and not isinstance(claimed.get(source), Claim)
        }
        held = threads.held(self.connection, set(earlier.values())) if earlier else set()
        refused = {source for source, claim in claimed.items() if isinstance(claim, SupersededError)}
        return refused | {source for source, claim in earlier.items() if claim not in held}

    def _append_events(self) -> None:
        ids = self.report.ids
        reported = [item for item in self.reported.items() if item[0] not in self.report.superseded]
        observed: dict[str, RunObservation] = {}
        for source, entries in reported:
            states = [entry for entry in entries if isinstance(entry, TaskState)]
            if states:
                known = observed[ids[source]].tasks if ids[source] in observed else ()
                observed[ids[source]] = RunObservation(source.run, [*known, *states])
        changes = observations.merge(self.connection, observed)
        new = [
            TryEvents(ids[source], source.place, _in_order(entries, changes.get(ids[source])))
            for source, entries in reported
        ]
        events.append_from_tries(self.connection, [one for one in new if one.events])


def _in_order(reported: Sequence[NewEvent | TaskState], changes: ObservedChanges | None) -> list[NewEvent]:
    """A source's events, with what its states have changed in the place where it reported them."""
    found: list[NewEvent] = []
    for entry in reported:
        if isinstance(entry, NewEvent):
            found.append(entry)
        elif changes is not None and changes.task_events:
            event = changes.task_events.pop(0)
            found += [event] if event is not None else []
            if not any(changes.task_events):  # the run's progress, after the last of its tasks
                found += changes.run_events
                changes.run_events = []
    return found
