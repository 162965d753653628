"""A graph that runs in another process, for whoever runs graphs of this one.

`RemoteGraph` has what `run_graph`, pauses and forks use of LangGraph's `Pregel`. Its checkpoints stay with the task:
the process asks for them, and never sees the database.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Interrupt, PregelTask, StateSnapshot, StateUpdate

from backend.checkpoints.batched_saver import BatchedSaver
from backend.runtime.remote.errors import ProjectProcessLostError, Tickets
from backend.runtime.remote.service import TaskService, wanted
from langgraph_flow_host import PROTOCOL
from langgraph_flow_host.channel import Channel, ConnectionLostError
from langgraph_flow_host.wire import pack

log = logging.getLogger(__name__)

AHEAD = 256
"""Parts of a stream that a process may be ahead of the task that records them."""

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass
class _Run:
    """A run whose stream is being read. `parts` ends with an error, or with None."""

    handlers: Sequence[BaseCallbackHandler]
    parts: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(AHEAD))
    open_nodes: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    taken: bool = False
    """Whether whoever reads the stream is busy with a part of it."""

    def drop(self) -> None:
        """Drop what nobody will read, so that whoever waits for it goes on."""
        if self.taken:
            self.parts.task_done()
        while not self.parts.empty():
            self.parts.get_nowait()
            self.parts.task_done()


class RemoteGraph:
    """One graph of a project, opened on a connection of its own, and again if that is lost."""

    def __init__(
        self,
        connect: Connect,
        opened: Mapping[str, Any],
        saver: BatchedSaver | None,
        store: Any,
    ) -> None:
        """`opened` are the arguments of the protocol's `open`. Use `open` before anything else, and `close` at last."""
        self.checkpointer = saver.passing() if saver is not None else None
        self.name = opened["name"]
        self._connect = connect
        self._tickets = Tickets()
        self._service = TaskService(self.checkpointer, store, self._tickets)
        self._opened = {**opened, "protocol": PROTOCOL, "saver": saver is not None, "store": store is not None}
        self._facts: Mapping[str, Any] = {}
        self._channel: Channel | None = None
        self._reading: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._runs: dict[int, _Run] = {}
        self._numbers = count(1)
        self._stops: dict[str, Any] = {"interrupt_before": None, "interrupt_after": None}

    async def open(self) -> "RemoteGraph":
        """Make the graph in its process. Raises `GraphLoadError`, and `ProjectProcessLostError` (a retry helps)."""
        await self._ask("facts", None)
        return self

    async def close(self) -> None:
        """End the connection, and with it all that is done for it."""
        if self._channel is not None:
            self._channel.close()
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    # What others read of a graph.

    @property
    def output_channels(self) -> str | list[str]:
        found: str | list[str] = self._facts["output_channels"]
        return found

    @property
    def config(self) -> RunnableConfig:
        """What the graph's author has set."""
        limit = self._facts["recursion_limit"]
        return {} if limit is None else {"recursion_limit": limit}

    @property
    def channels(self) -> list[str]:
        return list(self._facts["channels"])

    @property
    def has_message_events(self) -> bool:
        """Whether its LangGraph knows the events of the newer protocol."""
        return bool(self._facts["message_events"])

    @property
    def nodes(self) -> list[str]:
        return list(self._facts["nodes"])

    @property
    def context_schema(self) -> Any:
        """Stands for the context's class: its annotations are its fields, and it is called to see their defaults."""
        context = self._facts["context"]
        return None if context is None else _ContextSchema(context["fields"], context["defaults"])

    @property
    def interrupt_before_nodes(self) -> Any:
        return self._stops["interrupt_before"] or self._facts["before"]

    @property
    def interrupt_after_nodes(self) -> Any:
        return self._stops["interrupt_after"] or self._facts["after"]

    def stop_at(self, before: Any, after: Any) -> None:
        """Stop at these nodes instead of at the author's."""
        self._stops = {"interrupt_before": before, "interrupt_after": after}

    def get_subgraphs(self) -> Iterator[tuple[str, "_Subgraph"]]:
        return _Subgraph(self._facts).get_subgraphs()

    # What is done with a graph.

    async def astream(
        self,
        graph_input: Any,
        config: RunnableConfig,
        *,
        context: Mapping[str, Any] | None = None,
        stream_mode: Sequence[str] = ("values",),
        subgraphs: bool = True,  # noqa: ARG002  # always
        durability: str | None = None,
        whole: bool = False,
        message_events: bool = False,
    ) -> AsyncGenerator[tuple[tuple[str, ...], str, Any], None]:
        """The parts of a run's stream, of which `values` has only the last one unless they are wanted as a `whole`.
        With `message_events` models' answers are the newer protocol's events, where the graph `has_message_events`.

        Raises what the run fails with, and `ProjectProcessLostError`, before which the nodes that ran are reported as
        failed.
        """
        number, run = next(self._numbers), _Run(cast(Sequence[BaseCallbackHandler], config.get("callbacks") or ()))
        asked = {
            "run": number,
            "config": {name: value for name, value in config.items() if name != "callbacks"},
            "input": None if isinstance(graph_input, Command) else graph_input,
            "command": _sent(graph_input) if isinstance(graph_input, Command) else None,
            "context": context,
            "modes": list(stream_mode),
            "durability": durability,
            "whole": whole,
            "message_events": message_events,
            **self._stops,
            "chains": wanted(run.handlers, "on_chain_start"),
            "tools": wanted(run.handlers, "on_tool_start"),
        }
        self._runs[number] = run
        running = asyncio.create_task(self._run(run, asked))
        try:
            while True:
                part = await run.parts.get()
                run.taken = True
                if isinstance(part, ProjectProcessLostError):
                    for key, (namespace, name) in run.open_nodes.items():
                        lost: dict[str, Any] = {
                            "id": key,
                            "name": name,
                            "error": str(part),
                            "result": None,
                            "interrupts": [],
                        }
                        yield namespace, "tasks", lost
                if part is None:
                    return
                if isinstance(part, BaseException):
                    raise part
                _follow(run, part)
                yield part
                run.taken = False
                run.parts.task_done()
        finally:
            del self._runs[number]
            run.drop()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def aget_state(self, config: RunnableConfig, *, subgraphs: bool = False) -> StateSnapshot:
        asked = {"config": _place(config), "subgraphs": subgraphs}
        return _snapshot(await self._ask("state", asked))

    async def aupdate_state(self, config: RunnableConfig, values: Any, as_node: str | None = None) -> RunnableConfig:
        asked = {
            "config": _place(config),
            "values": None if isinstance(values, Command) else values,
            "command": _sent(values) if isinstance(values, Command) else None,
            "as_node": as_node,
            "steps": None,
        }
        return cast(RunnableConfig, await self._ask("update", asked))

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        steps = [[(one.values, one.as_node) for one in step] for step in supersteps]
        asked = {"config": _place(config), "values": None, "command": None, "as_node": None, "steps": steps}
        return cast(RunnableConfig, await self._ask("update", asked))

    # The connection.

    async def _run(self, run: _Run, asked: Mapping[str, Any]) -> None:
        end: BaseException | None = None
        try:
            await self._ask("run", asked)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # is raised by whoever reads the stream
            end = error
        await run.parts.put(end)

    async def _ask(self, method: str, arguments: Any) -> Any:
        channel = await self._open_channel()
        if method == "facts":
            return None
        data = pack(arguments)
        try:
            return await channel.ask(method, data)
        except ConnectionLostError:
            raise _lost() from None

    async def _open_channel(self) -> Channel:
        async with self._opening:
            if self._channel is not None and self._reading is not None and not self._reading.done():
                return self._channel
            reader, writer = await self._connect()
            channel = self._channel = Channel(
                reader,
                writer,
                self._answer,
                told=self._told,
                packed=self._tickets.packed,
                unpacked=self._tickets.unpacked,
            )
            self._reading = asyncio.create_task(channel.run())
            try:
                self._facts = await channel.ask("open", pack(self._opened))
            except ConnectionLostError:
                raise _lost() from None
            return channel

    async def _answer(self, method: str, arguments: Any) -> Any:
        if method != "callback":
            return await self._service.answer(method, arguments)
        number, event, given, known = arguments
        if (run := self._runs.get(number)) is not None:
            await run.parts.join()  # a call belongs to a node that has been reported
        if number not in self._runs or run is None:
            raise RuntimeError("the agent was stopped: no further model call is made")
        return await self._service.call(run.handlers, event, given, known)

    async def _told(self, method: str, arguments: Any) -> None:
        if method == "log":
            level, name, text = arguments
            logging.getLogger(f"{self.name}.{name}").log(level, "%s", text)
        elif method == "chunk":
            number, namespace, mode, chunk = arguments
            if (run := self._runs.get(number)) is not None:
                await run.parts.put((tuple(namespace), mode, tuple(chunk) if mode == "messages" else chunk))


class _ContextSchema:
    def __init__(self, fields: Sequence[str], defaults: bool) -> None:
        self.__annotations__ = dict.fromkeys(fields, Any)
        self._defaults = defaults

    def __call__(self) -> None:
        if not self._defaults:
            raise TypeError("some fields have no default")


class _Subgraph:
    """What pauses need of a graph inside another."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.interrupt_before_nodes = facts["before"]
        self.interrupt_after_nodes = facts["after"]
        self._subgraphs: Mapping[str, Any] = facts["subgraphs"]

    def get_subgraphs(self) -> Iterator[tuple[str, "_Subgraph"]]:
        yield from ((name, _Subgraph(facts)) for name, facts in self._subgraphs.items())


def _follow(run: _Run, part: tuple[tuple[str, ...], str, Any]) -> None:
    """Know which nodes are running."""
    namespace, mode, chunk = part
    if mode == "tasks":
        if "triggers" in chunk:
            run.open_nodes[chunk["id"]] = namespace, chunk["name"]
        else:
            run.open_nodes.pop(chunk["id"], None)


def _sent(command: Command[Any]) -> dict[str, Any]:
    return {"update": command.update, "resume": command.resume, "goto": command.goto}


def _lost() -> ProjectProcessLostError:
    return ProjectProcessLostError("the process that ran the project's graph has ended before the graph")


def _place(config: RunnableConfig) -> dict[str, Any]:
    own = config.get("configurable") or {}
    return {
        "configurable": {name: own[name] for name in ("thread_id", "checkpoint_ns", "checkpoint_id") if name in own}
    }


def _snapshot(sent: Mapping[str, Any]) -> StateSnapshot:
    tasks = tuple(_task(one) for one in sent["tasks"])
    return StateSnapshot(
        sent["values"],
        tuple(sent["next"]),
        sent["config"],
        sent["metadata"],
        sent["created_at"],
        sent["parent"],
        tasks,
        tuple(one for task in tasks for one in task.interrupts),
    )


def _task(sent: Mapping[str, Any]) -> PregelTask:
    return PregelTask(
        id=sent["id"],
        name=sent["name"],
        path=(),
        error=None if sent["error"] is None else RuntimeError(sent["error"]),
        interrupts=tuple(Interrupt(value, id=key, response_schema=schema) for value, key, schema in sent["interrupts"]),
        state=_snapshot(sent["state"]) if sent["inner"] else sent["state"],
        result={} if sent["done"] else None,
    )
