"""What recorders write: the kinds of records, and the transaction that carries out those of many tasks at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.db.runs import events, executions, observations, run_usage, takeover, threads, traces
from backend.db.runs.events import Told
from backend.db.runs.executions import RunState
from backend.db.runs.observations import News, Seen
from backend.db.runs.run_usage import Used
from backend.db.runs.threads import Claim, ClaimRequest, SupersededError
from backend.db.runs.traces import Place

Operation = Callable[[Connection, str], list[NewEvent]]
"""Writes rows for the execution of that id and gives the events that tell of them."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A row of `agent_traces` in its present state; all that wait go into one statement. `values` makes the row."""

    values: Callable[[], dict[str, Any]]
    event: NewEvent | None = None


@dataclass(frozen=True, slots=True)
class RunUsage:
    """Tokens and cost (US dollars, None when unknown) to add to the run's totals; added up before they are written."""

    input_tokens: int
    output_tokens: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class StateSeen:
    """The task's state, of a task that Airflow calls no listener for. Not told by a claim that is lost."""

    state: TaskState


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the task returns, as the run's result. Not kept for a claim that is lost."""

    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TakeThread:
    """Takes the task's thread for this try, and ends what was left open before.

    `answer` is called with the claim, or with what made it impossible, when the transaction is over; `given_up` says
    whether nobody wants it any more.
    """

    agents: Sequence[str]
    input_hash: str
    instance: str | None
    answer: Callable[[Claim | Exception], None]
    given_up: Callable[[], bool]


Record = Operation | TraceRow | RunUsage | StateSeen | RunResult | TakeThread


class Teller(Protocol):
    """One try of a task, whose records these are: a `Recorder`."""

    place: Place
    run: RunState
    thread_id: str
    execution_id: str | None
    claim: Claim | None
    superseded: bool

    def ended(self, records: int, *, dropped: bool = False) -> None:
        """So many of its records are written, or can't be."""


Entry = tuple[Teller, Record]


@dataclass(slots=True)
class Written:
    """What became of a transaction's entries. All that are neither put off nor of `gone` tellers are written."""

    ids: dict[Teller, str]
    """The executions of the tellers."""
    put_off: list[Entry] = field(default_factory=list)
    """Somebody else has the execution locked: to be tried again, in the same order."""
    gone: list[Teller] = field(default_factory=list)
    """There is no such execution any more."""
    taken: list[tuple[TakeThread, Claim | SupersededError]] = field(default_factory=list)
    lost: list[Teller] = field(default_factory=list)
    """Those whose claim is lost: of what they said, rows are kept but no states, results and events."""


def carry_out(connection: Connection, group: Sequence[Entry], *, wait: bool) -> Written:
    """Write records of any number of tasks, each task's in order, in few statements.

    Without `wait`, executions that somebody else has locked are put off: nobody's records wait for another run's lock.
    Raises what the database refuses, also when two take the same thread; fewer records may then succeed.
    """
    tellers = list(dict.fromkeys(teller for teller, _ in group))
    unknown = [teller for teller in tellers if teller.execution_id is None]
    made = executions.ensure_all(connection, [teller.run for teller in unknown]) if unknown else {}
    ids = {one: one.execution_id or made[one.run.dag_id, one.run.dag_run_id] for one in tellers}
    locked = executions.lock(connection, ids.values(), wait=wait)
    waiting = {teller for teller in tellers if locked.get(ids[teller]) is False}
    written = Written(
        ids,
        put_off=[entry for entry in group if entry[0] in waiting],
        gone=[teller for teller in tellers if ids[teller] not in locked],
    )
    entries = [entry for entry in group if entry[0] not in waiting and ids[entry[0]] in locked]
    _Transaction(connection, written, entries).write()
    return written


class _Transaction:
    """The entries whose executions are locked."""

    def __init__(self, connection: Connection, written: Written, entries: Sequence[Entry]) -> None:
        self._connection = connection
        self._written = written
        self._ids = written.ids
        self._entries = entries

    def write(self) -> None:
        silent = self._silent(self._take_threads())
        rows: list[dict[str, Any]] = []
        used: list[Used] = []
        results: dict[str, Any] = {}
        said: dict[Teller, list[NewEvent | StateSeen]] = {}
        for teller, record in self._entries:
            execution_id = self._ids[teller]
            says = said.setdefault(teller, [])
            if isinstance(record, TraceRow):
                rows.append({**record.values(), "execution_id": execution_id})
                says += [record.event] if record.event is not None else []
            elif isinstance(record, RunUsage):
                used.append(Used(execution_id, record.input_tokens, record.output_tokens, record.cost))
            elif isinstance(record, StateSeen):
                says.append(record)
            elif isinstance(record, RunResult):
                results |= {execution_id: record.result} if teller not in silent else {}
            elif not isinstance(record, TakeThread):
                says += record(self._connection, execution_id)
        traces.write(self._connection, rows)
        run_usage.add(self._connection, used)
        executions.set_results(self._connection, results)
        self._tell({teller: says for teller, says in said.items() if teller not in silent})
        self._written.lost = list(silent)

    def _take_threads(self) -> dict[Teller, Claim | SupersededError]:
        wanted = {teller: record for teller, record in self._entries if isinstance(record, TakeThread)}
        if not wanted:
            return {}
        takeover.close_lost(self._connection, [(self._ids[teller], teller.place) for teller in wanted])
        claims = threads.begin(
            self._connection,
            [
                ClaimRequest(
                    self._ids[teller],
                    teller.thread_id,
                    teller.place.try_number,
                    record.agents,
                    record.input_hash,
                    record.instance,
                )
                for teller, record in wanted.items()
            ],
        )
        taken = dict(zip(wanted, claims, strict=True))
        self._written.taken = [
            (record, taken[teller]) for teller, record in self._entries if isinstance(record, TakeThread)
        ]
        return taken

    def _silent(self, taken: Mapping[Teller, Claim | SupersededError]) -> set[Teller]:
        """Those whose word doesn't count any more."""
        claims = {
            teller: teller.claim
            for teller, _ in self._entries
            if teller.claim is not None and not isinstance(taken.get(teller), Claim)
        }
        lasting = threads.held(self._connection, set(claims.values())) if claims else set()
        superseded = {teller for teller, claim in taken.items() if isinstance(claim, SupersededError)}
        return superseded | {teller for teller, claim in claims.items() if claim not in lasting}

    def _tell(self, said: Mapping[Teller, Sequence[NewEvent | StateSeen]]) -> None:
        seen: dict[str, Seen] = {}
        for teller, says in said.items():
            states = [one.state for one in says if isinstance(one, StateSeen)]
            if states:
                before = seen.get(self._ids[teller])
                seen[self._ids[teller]] = Seen(teller.run, [*(before.tasks if before else ()), *states])
        news = observations.merge(self._connection, seen)
        told = [
            Told(
                self._ids[teller],
                teller.place.task_id,
                teller.place.map_index,
                teller.place.try_number,
                _in_order(says, news.get(self._ids[teller])),
            )
            for teller, says in said.items()
        ]
        events.append_from_tries(self._connection, [one for one in told if one.events])


def _in_order(says: Sequence[NewEvent | StateSeen], news: News | None) -> list[NewEvent]:
    """A teller's events, with what its states have changed where it told of them."""
    found: list[NewEvent] = []
    for one in says:
        if isinstance(one, NewEvent):
            found.append(one)
        elif news is not None and news.of_tasks:
            new = news.of_tasks.pop(0)
            found += [new] if new is not None else []
            if not any(news.of_tasks):  # the run's progress, after the last of its tasks
                found += news.of_run
                news.of_run = []
    return found
