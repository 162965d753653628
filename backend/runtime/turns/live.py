"""What a turn streams to its clients while its graph runs, and the states that it leaves."""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.types import Durability, StateSnapshot, StreamMode

from backend.core.errors.decision import Fail, Reschedule
from backend.core.jsonable import dumps
from backend.core.redaction import hide
from backend.core.turns import Frame, Turn
from backend.core.workflow_error_handler import AgentFailure, as_failure
from backend.db.conversations.frames import END
from backend.db.conversations.states import NewState
from backend.db.conversations.turns import end_frames, latest_part
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import TurnNews
from backend.runtime.graphs.pauses import Graph
from backend.runtime.remote.graph import RemoteGraph
from backend.runtime.turns.chunks import ChunkFrames, interrupt_json, plain
from backend.runtime.turns.message_events import MessageEvents
from backend.runtime.turns.protocol_events import MODES, ProtocolEvents, with_message_events

log = logging.getLogger(__name__)

Part = tuple[tuple[str, ...], str, Any]
Piece = tuple[Part, Sequence[Any]]
"""A part, and what the protocol's events are made of."""

Run = Callable[..., AsyncGenerator[Any]]
"""Streams the graph on its input; `config`, `stream_mode` and the form of the parts are still to be said."""


class LiveTurn:
    """The turn that a task runs. `id` is that of the part of it which is under way: an answer begins another one."""

    def __init__(self, turn: Turn, part: str, recorder: Recorder, attempt: int) -> None:
        self.turn = turn
        self.id = part
        self._recorder = recorder
        self._attempt = attempt

    @property
    def execution_id(self) -> str:
        """The id of the run's execution."""
        assert self._recorder.execution_id is not None  # noqa: S101  # the turn has been begun
        return self._recorder.execution_id

    def begin(self, part: str) -> None:
        """Report that the turn goes on, as this part of it."""
        self.id = part
        self._put(
            Frame("metadata", (), dumps({"run_id": part, "attempt": self._attempt})),
            Frame(END, (), dumps({"event": "running", "graph_name": self.turn.metadata.get("graph_id")})),
            state="running",
        )

    async def go_on(self, database: Database) -> None:
        """Report that the turn goes on after an answer."""
        self.begin(await retry_until_available(partial(database.run, latest_part, self.execution_id, self.id)))

    async def pause(self, graph: Graph | None, config: RunnableConfig) -> None:
        """Report that the graph waits for people."""
        frames = []
        if graph is not None:
            state = await self._settle(graph, config)
            for interrupt in _once(state):
                asked = {"interrupt_id": interrupt["id"], "value": interrupt["value"], "payload": interrupt["value"]}
                frames.append(Frame("input.requested", (), dumps(asked)))
        self._put(*frames, Frame(END, (), dumps({"event": "interrupted"})), state="paused")

    async def succeed(self, graph: Graph | None, config: RunnableConfig) -> None:
        """Report that the graph has come to its end."""
        if graph is not None:
            await self._settle(graph, config)
        self._put(*end_frames("success"), state="success")

    def decided(self, error: Exception) -> AgentFailure:
        """The failure that an error is. While somebody waits, a bug is not met again in another try."""
        failure = as_failure(error)
        found = failure.classified
        if not self.turn.interactive or found.category not in ("internal", "tool") or found.final:
            return failure
        final = replace(found, final=True)
        return AgentFailure(failure.error, final, Fail(True), attempt=failure.attempt, recorded=failure.recorded)

    async def fail(self, graph: Graph | None, config: RunnableConfig, failure: AgentFailure) -> None:
        """Report a failure that no other try follows, and keep what LangGraph says of the state in which it happened.

        After any other the turn ends with its run.
        """
        if graph is not None:
            await self._settle(graph, config)
        if failure.classified.final and not isinstance(failure.decision, Reschedule):
            error = {"error": failure.classified.exception_type, "message": failure.classified.message}
            self._put(*end_frames("error", error), state="error")

    async def parts(
        self,
        graph: Graph,
        graph_input: Any,
        config: RunnableConfig,
        *,
        context: Any,
        modes: Sequence[StreamMode],
        durability: Durability | None,
    ) -> AsyncGenerator[Part]:
        """The parts of the graph's stream in these `modes`, at least, each of which is reported."""
        remote = isinstance(graph, RemoteGraph)
        shaped = isinstance(graph, RemoteGraph) and graph.has_message_events
        stream_of = graph.astream_events if self._reports_all(remote) else graph.astream
        run = cast("Run", partial(stream_of, graph_input, context=context, durability=durability))
        if self.turn.protocol == 2:
            pieces = _remote_pieces(run, config, modes, shaped=shaped) if remote else _pieces(run, config, modes)
            stream = self._events(ProtocolEvents(graph), pieces)
        elif self._reports_all(remote):
            stream = self._all_events(run, config, modes)
        else:
            stream = self._chunks(partial(run, whole=True) if remote else run, config, modes)
        async with aclosing(stream):
            async for namespace, mode, chunk in stream:
                if mode == "checkpoints":
                    self._put(states=[_of_chunk(chunk)])
                yield namespace, mode, chunk

    def _reports_all(self, remote: bool) -> bool:
        return self.turn.protocol == 1 and "events" in self.turn.modes and not remote

    async def _chunks(self, run: Run, config: RunnableConfig, modes: Sequence[StreamMode]) -> AsyncGenerator[Part]:
        made = ChunkFrames(self.turn.modes, subgraphs=self.turn.subgraphs)
        every = _all([*modes, "checkpoints", *made.graph_modes()])
        async with aclosing(run(config=config, stream_mode=every, subgraphs=True)) as parts:
            async for namespace, mode, chunk in parts:
                self._put(*made.of(namespace, mode, chunk))
                yield namespace, mode, chunk

    async def _all_events(self, run: Run, config: RunnableConfig, modes: Sequence[StreamMode]) -> AsyncGenerator[Part]:
        """The same with the mode `events`: whatever LangChain's callbacks report."""
        made = ChunkFrames(self.turn.modes, subgraphs=self.turn.subgraphs)
        every = _all([*modes, "checkpoints", *made.graph_modes()])
        root = None
        async with aclosing(run(config=config, version="v2", stream_mode=every, subgraphs=True)) as stream:
            async for event in stream:
                root = root or event["run_id"]
                if event["event"] == "on_chain_stream" and event["run_id"] == root:
                    namespace, mode, chunk = event["data"]["chunk"]
                    self._put(*made.of(namespace, mode, chunk))
                    yield namespace, mode, chunk
                else:
                    self._put(Frame("events", (), dumps(plain(event))))

    async def _events(self, events: ProtocolEvents, pieces: AsyncGenerator[Piece]) -> AsyncGenerator[Part]:
        error: Exception | None = None
        try:
            async with aclosing(pieces):
                async for part, pushed in pieces:
                    for one in pushed:
                        self._put(*await events.push(one))
                    yield part
        except Exception as raised:
            error = raised
            raise
        finally:
            self._put(*await events.end(error))

    async def _settle(self, graph: Graph, config: RunnableConfig) -> StateSnapshot | None:
        """Keep what LangGraph says of the state in which the thread is now. What has gone well stays so without it."""
        if not hasattr(graph.checkpointer, "aput"):
            return None
        try:
            state = await graph.aget_state(config, subgraphs=True)
        except Exception as error:  # a reducer that has refused what a node wrote refuses it again
            log.warning("the state of the conversation can't be read: %s", type(error).__name__)
            return None
        if state.created_at is not None:
            self._put(states=_of_snapshot(state))
        return state

    def _put(self, *frames: Frame, states: Sequence[NewState] = (), state: str | None = None) -> None:
        if not frames and not states and state is None:
            return
        hidden = self._recorder.hidden
        shown = [Frame(one.mode, one.namespace, hide(one.data, hidden)) for one in frames] if hidden else frames
        self._recorder.put(TurnNews(self.turn.conversation, self.id, shown, states, state))


async def _pieces(run: Run, config: RunnableConfig, modes: Sequence[StreamMode]) -> AsyncGenerator[Piece]:
    every = _all([*modes, *MODES])
    stream = run(config=with_message_events(config), stream_mode=every, subgraphs=True, version="v2")
    async with aclosing(stream) as parts:
        async for part in parts:
            yield (tuple(part["ns"]), part["type"], part["data"]), [part]


async def _remote_pieces(
    run: Run, config: RunnableConfig, modes: Sequence[StreamMode], *, shaped: bool
) -> AsyncGenerator[Piece]:
    """The same for a graph in another environment, whose own transformers don't take part. Where its LangGraph is older
    than the protocol, what its models say is not `shaped` there but here, and tools tell nothing."""
    messages = MessageEvents()
    every = [mode for mode in _all([*modes, *MODES]) if shaped or mode != "tools"]
    async with aclosing(run(config=config, stream_mode=every, whole=True, message_events=shaped)) as parts:
        async for namespace, mode, chunk in parts:
            events = messages.of(*chunk) if mode == "messages" and not shaped else [chunk]
            yield (namespace, mode, chunk), [{"type": mode, "ns": namespace, "data": data} for data in events]


def _all(modes: Sequence[str]) -> list[str]:
    return [*dict.fromkeys(modes)]


def _of_chunk(chunk: Mapping[str, Any]) -> NewState:
    place = chunk["config"]["configurable"]
    return NewState(place.get("checkpoint_ns", ""), place["checkpoint_id"], chunk["next"], plain(chunk["tasks"]))


def _of_snapshot(state: StateSnapshot) -> list[NewState]:
    place = state.config["configurable"]
    tasks = [
        {
            "id": task.id,
            "name": task.name,
            "path": list(task.path),
            "error": None if task.error is None else str(task.error),
            "interrupts": [interrupt_json(one) for one in task.interrupts],
            "checkpoint": task.state.config["configurable"] if isinstance(task.state, StateSnapshot) else None,
            "result": None,
        }
        for task in state.tasks
    ]
    inner = [one for task in state.tasks if isinstance(task.state, StateSnapshot) for one in _of_snapshot(task.state)]
    return [NewState(place.get("checkpoint_ns", ""), place["checkpoint_id"], state.next, tasks), *inner]


def _once(state: StateSnapshot | None) -> list[dict[str, Any]]:
    """The interrupts of a state; those of a subgraph are also its node's."""
    found = (one for task in (state.tasks if state is not None else ()) for one in task.interrupts)
    return [*{one.id: interrupt_json(one) for one in found}.values()]
