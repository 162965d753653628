"""One task's connection: the graph that it wants, its runs and its states.

The task asks `open` first, and then any number of times, also at the same time:

    run      the run's number, config, input, context, modes of streams, whether as a `whole` and with models'
             answers as the newer protocol's events, durability and breakpoints; tells `chunk` until it replies
    state    a config, and whether with the states of subgraphs
    update   a config, values and a node, as `update_state`, or several `steps` of them; returns the new config

This end asks for `get_tuple`, `list`, `put`, `put_writes` and `delete_thread` (`saver`), `store` and `callback`.
"""

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateUpdate

from langgraph_flow_host import PROTOCOL
from langgraph_flow_host.callbacks import TaskCallbacks
from langgraph_flow_host.embedding import Embedder
from langgraph_flow_host.errors import ProjectError
from langgraph_flow_host.graphs import Around, Project, find, make
from langgraph_flow_host.link import Link
from langgraph_flow_host.saver import TaskSaver
from langgraph_flow_host.snapshots import Snapshots
from langgraph_flow_host.store import TaskStore

_METADATA = ("langgraph_", "visual_ai_", "ls_")

_MESSAGE_EVENTS: dict[str, Any]
"""What makes LangGraph stream models' answers as events of the newer protocol; nothing where it doesn't know them."""
try:
    from langgraph._internal._constants import CONFIG_KEY_STREAM_MESSAGES_V2

    _MESSAGE_EVENTS = {CONFIG_KEY_STREAM_MESSAGES_V2: True}
except ImportError:
    _MESSAGE_EVENTS = {}


class Session:
    """What the task at the other end of a link may ask. All of it happens on the graph's event loop."""

    def __init__(self, project: Project, link: Link) -> None:
        self._project = project
        self._link = link
        self._resources = AsyncExitStack()
        self._graph: Any = None
        self._snapshots = Snapshots(None)

    async def close(self) -> None:
        """Close what functions that make graphs hold open."""
        with suppress(Exception):  # nobody is left to hear of it
            await self._resources.aclose()

    async def handle(self, method: str, arguments: Any) -> Any:
        """Answer what the task asks."""
        if method == "open":
            return await self._open(arguments)
        if self._graph is None:
            raise ValueError("nothing is open")
        if method == "run":
            return await self._run(arguments)
        if method == "state":
            found = await self._graph.aget_state(arguments["config"], subgraphs=arguments["subgraphs"])
            return await self._snapshots.sent(found)
        if method == "update":
            values = arguments["values"]
            if arguments["command"] is not None:
                values = self._snapshots.command(arguments["command"])
            if (steps := arguments["steps"]) is not None:
                updates = [[StateUpdate(one, node) for one, node in step] for step in steps]
                return await self._graph.abulk_update_state(arguments["config"], updates)
            return await self._graph.aupdate_state(arguments["config"], values, arguments["as_node"])
        raise ValueError(f"{method!r} is unknown")

    async def _open(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if asked["protocol"] != PROTOCOL:
            raise ProjectError(f"the task speaks version {asked['protocol']} of the protocol, not {PROTOCOL}")
        name = asked["graph"]
        project = self._project
        if name not in project.places:
            raise ProjectError(f"there is no {name!r}; the project has {', '.join(sorted(project.places))}")
        saver = TaskSaver(self._link) if asked["saver"] else None
        store = TaskStore(self._link, project.store, self._embedder()) if asked["store"] else None
        around = Around(asked["config"], asked["context"], store, asked["user"])
        self._graph = await make(project.places[name], project.folder, around, self._resources, saver, asked["name"])
        self._snapshots = Snapshots(saver)
        return facts(self._graph)

    def _embedder(self) -> Embedder | None:
        index = self._project.store.index
        return None if index is None else Embedder(index, lambda place: find(place, self._project.folder))

    async def _run(self, asked: Mapping[str, Any]) -> None:
        run, given = asked["run"], asked["input"]
        if asked["command"] is not None:
            given = self._snapshots.command(asked["command"])
        config = {
            **asked["config"],
            "callbacks": [TaskCallbacks(self._link, run, chains=asked["chains"], tools=asked["tools"])],
        }
        shaped = {}
        if asked["message_events"]:
            config["configurable"] = {**config.get("configurable", {}), **_MESSAGE_EVENTS}
            shaped = {"version": "v2"}
        stream = self._graph.astream(
            given,
            cast(RunnableConfig, config),
            context=asked["context"],
            stream_mode=asked["modes"],
            subgraphs=True,
            **shaped,
            **{name: asked[name] for name in ("durability", "interrupt_before", "interrupt_after") if asked[name]},
        )
        whole = asked["whole"]
        values: list[Any] = []
        async with aclosing(stream):
            async for part in stream:
                namespace, mode, chunk = (part["ns"], part["type"], part["data"]) if shaped else part
                if mode == "values" and not whole:  # only the last is the output
                    values = values if namespace else [chunk]
                elif (sent := _sent(mode, chunk, whole)) is not None:
                    await self._link.tell("chunk", [run, list(namespace), mode, sent])
        if values:
            await self._link.tell("chunk", [run, [], "values", values[0]])


def _sent(mode: str, chunk: Any, whole: bool) -> Any:
    """What of a stream's part the task has a use for; all of it if it streams to clients as a `whole`."""
    if mode == "messages":
        message, metadata = chunk
        if not whole and not isinstance(message, AIMessage):
            return None
        known = {
            name: value for name, value in metadata.items() if name.startswith(_METADATA) or name in ("tags", "run_id")
        }
        return [message, known]
    if mode == "tasks" and isinstance(chunk.get("error"), BaseException):
        return {**chunk, "error": str(chunk["error"])}
    return chunk


def facts(graph: Any) -> dict[str, Any]:
    """What the task has to know of a graph to run it."""
    schema = graph.context_schema
    context = None
    if schema is not None:
        fields = [*(getattr(schema, "model_fields", None) or getattr(schema, "__annotations__", None) or ())]
        context = {"fields": fields, "defaults": _has_defaults(schema)}
    output = graph.output_channels
    return {
        "output_channels": output if isinstance(output, str) else list(output),
        "context": context,
        "recursion_limit": (graph.config or {}).get("recursion_limit"),
        "channels": list(graph.channels),
        "nodes": list(graph.nodes),
        "message_events": bool(_MESSAGE_EVENTS),
        **_breakpoints(graph),
    }


def _breakpoints(graph: Any) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    with suppress(Exception):  # LangGraph reads the nodes' source for it
        inner = {name: _breakpoints(one) for name, one in graph.get_subgraphs()}
    before, after = graph.interrupt_before_nodes, graph.interrupt_after_nodes
    return {
        "before": before if isinstance(before, str) else list(before),
        "after": after if isinstance(after, str) else list(after),
        "subgraphs": inner,
    }


def _has_defaults(schema: Any) -> bool:
    try:
        schema()
    except (TypeError, ValueError):
        return False
    return True


class TaskLog(logging.Handler):
    """Sends what the project logs to the task's log."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # a log that isn't read any more
            self._link.note("log", [record.levelno, record.name, self.format(record)])


class TaskOutput:
    """A text stream whose lines go to the task's log."""

    encoding = "utf-8"

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._link.note("log", [logging.INFO, self._name, line])
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is sent when it is complete."""

    def isatty(self) -> bool:
        return False
