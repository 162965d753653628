"""Runs one compiled graph on its thread: from the start, or from where an earlier try stopped."""

from collections.abc import Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.pregel import Pregel
from langgraph.types import StreamMode

from backend.checkpoints.batched_saver import BatchedSaver
from backend.core.errors.input_error import InputError
from backend.core.jsonable import to_jsonable
from backend.observation.recording.observer import AgentObserver, node_path

Graph = Pregel[Any, Any, Any, Any]


class GraphInterruptError(InputError):
    """The graph waits for a person (`interrupt()`), whom a task can't ask. A retry doesn't help."""

    field = "graph"


async def run_graph(
    graph: Graph,
    config: RunnableConfig,
    graph_input: Any,
    observer: AgentObserver,
    *,
    context: Mapping[str, Any] | None,
    resumes: bool,
    tokens: bool = True,
) -> Any:
    """Run the graph and return its output as JSON. Nodes, tokens and usage are reported to the observer.

    Without `tokens`, models don't stream their answers, which saves most of an answer's CPU time. If it `resumes`,
    LangGraph runs only what is left of the thread: nothing, if the graph has come to its end. Raises whatever a node
    raises.
    """
    if resumes and (saved := await graph.aget_state(config)).created_at is not None:
        if not saved.next:
            return returned(graph, saved.values)
        graph_input = None
    if context is None and graph.context_schema is not None:
        context = _default_context(graph.context_schema)
    output: Any = None
    modes: list[StreamMode] = ["tasks", "messages", "values"] if tokens else ["tasks", "values"]
    stream = graph.astream(graph_input, config, context=context, stream_mode=modes, subgraphs=True)
    interrupted = False
    async for part in stream:
        namespace, mode, chunk = cast(tuple[tuple[str, ...], str, Any], part)
        if mode == "messages":
            message, metadata = chunk
            if isinstance(message, AIMessage) and message.text:
                observer.token(metadata, message.text)
        elif mode == "tasks":
            if "triggers" in chunk:
                parent = namespace[-1].partition(":")[2] if namespace else None
                observer.node_started(chunk["id"], node_path(namespace, chunk["name"]), chunk["input"], parent)
            else:
                observer.node_finished(chunk["id"], chunk.get("error"), chunk.get("result"))
                interrupted = interrupted or (bool(chunk.get("interrupts")) and not namespace)
        elif not namespace:
            output = chunk
    if isinstance(graph.checkpointer, BatchedSaver):
        await graph.checkpointer.flush()
    if interrupted:
        raise GraphInterruptError("stopped at interrupt() to ask a person; a task can't run such graphs yet")
    return returned(graph, output)


def _default_context(schema: Any) -> dict[str, Any] | None:
    """An empty context if all of its fields have defaults, which is what LangGraph's server passes as well."""
    try:
        schema()
    except (TypeError, ValueError):
        return None
    return {}


def returned(graph: Graph, state: Any) -> Any:
    """The part of a state that the graph's output schema names, as JSON."""
    if isinstance(state, Mapping) and not isinstance(graph.output_channels, str):
        state = {name: state[name] for name in graph.output_channels if name in state}
    return to_jsonable(state)


def mapped(output: Any, mapping: Mapping[str, str] | None) -> Any:
    """Parts of an output under new names: `{"answer": "messages.-1.content"}`.

    Raises `InputError` naming a path that doesn't exist.
    """
    return output if not mapping else {name: _follow(output, path) for name, path in mapping.items()}


def _follow(output: Any, path: str) -> Any:
    value = output
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise InputError(f"{path!r} leads nowhere: there is no {step!r}", field="output_mapping") from None
    return value
