"""A turn of a conversation, as it stands in the conf of its run.

A conversation is a LangGraph thread that outlives a run. Its states are LangGraph's own checkpoints, all in one thread,
so that history, branches and resuming are LangGraph's as well.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

TURN = "turn"
"""The key, under the system's key of a run's conf, of the turn."""

RUN_ID = "run_id"
"""The key of checkpoints' metadata that names the turn which has written them."""

Protocol = Literal[1, 2]
"""Of LangGraph's streams: `runs/stream` with its modes, or `stream/events` with its channels."""

ENDED = frozenset({"success", "error", "cancelled"})
"""The states of turns that are over. One that is `paused` waits for people."""

_NAMES = uuid.UUID("6f1d3c0e-5d0e-4f0c-9d0a-2f6a3a0b7c11")


_VERSION = 8
"""Of the UUIDs that names become: RFC 9562 leaves it to each system. Nobody else may make conversations with such ids,
so that nobody waits in one for what a DAG will say there."""


def conversation_id_of(dag_id: str, name: str) -> str:
    """The id of the conversation that a DAG's tasks call by this name; a UUID names itself."""
    try:
        return str(uuid.UUID(name))
    except ValueError:
        digest = hashlib.sha256(f"{dag_id}/{name}".encode()).digest()
        return str(uuid.UUID(int=uuid.UUID(bytes=digest[:16], version=5).int & ~(0xF << 76) | _VERSION << 76))


def is_named(conversation: str) -> bool:
    """Whether a conversation's id is made of a name that a DAG's tasks give it."""
    return uuid.UUID(conversation).version == _VERSION


def of_input(system: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The signed part of a run's conf with its turn, if it has one, knowing the names of the run's input."""
    return {**system, TURN: {**system[TURN], "names": [*given]}} if TURN in system else system


@dataclass(frozen=True, slots=True)
class Turn:
    """What a run does in a conversation. The graph's input is the run's, the task's, or `input`, as `source` says; of
    the run's, to which Airflow has added what its parameters leave open, the parts with these `names`.

    `command` is what `langgraph.types.Command` takes: `update`, `goto` and `resume`. `update` is a state to write
    instead of running the graph: `values` and `as_node`. With a `checkpoint_id` the turn goes on from there.
    """

    conversation: str
    id: str
    source: Literal["run", "task", "turn"] = "run"
    input: Any = None
    names: Sequence[str] = ()
    command: Mapping[str, Any] | None = None
    update: Mapping[str, Any] | None = None
    checkpoint_id: str | None = None
    checkpoint_ns: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] | None = None
    interrupt_before: Any = None
    interrupt_after: Any = None
    durability: str | None = None
    protocol: Protocol = 1
    modes: Sequence[str] = ("values",)
    subgraphs: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    temporary: bool = False
    """Whether a conversation that is made for the turn is deleted later."""

    @property
    def claimed(self) -> bool:
        """Whether a task names somebody's conversation by its id, which the run's input may have brought along."""
        return self.source == "task" and not is_named(self.conversation)

    @property
    def interactive(self) -> bool:
        """Whether somebody waits for it, and not just the tasks after it."""
        return self.source != "task"

    def to_json(self) -> dict[str, Any]:
        """The turn as it stands in the conf."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, found: Any) -> Self | None:
        """The turn that stands in a conf, if one does."""
        return cls(**found) if isinstance(found, Mapping) else None

    def of_run(self, run: str) -> Self:
        """The turn in this run of a schedule, whose runs all have the same in their confs: with ids of its own, and
        without a conversation in one of its own."""
        own = str(uuid.uuid5(_NAMES, run))
        conversation = self.conversation or str(uuid.uuid5(_NAMES, own))
        metadata = {**self.metadata, "thread_id": conversation}
        return self if self.id else replace(self, id=own, conversation=conversation, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of what a turn's graph streams: its mode or method, the subgraph's namespace, and its data as JSON."""

    mode: str
    namespace: tuple[str, ...]
    data: str
