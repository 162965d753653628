"""Runs one compiled graph on its thread: from the start, or from where an earlier try stopped.

What a graph returns is data for later tasks, so it is converted to JSON without losing anything, or refused
(`core/exact_json.py`). So is what can't be kept in its checkpoints: the run then ends before the next node is paid for.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.constants import START
from langgraph.errors import GraphRecursionError
from langgraph.types import StreamMode

from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.state_serializer import NotKeptError
from backend.core.budget import BudgetExceededError
from backend.core.errors.agent_errors import UnstorableOutputError
from backend.core.errors.input_error import InputError
from backend.core.exact_json import LARGEST, NoJsonFormError, SizeLimit, to_json
from backend.core.jsonable import Path
from backend.core.large_values import apart
from backend.core.problems import pointer
from backend.observation.recording.observer import AgentObserver, node_path
from backend.runtime.graphs.message_stream import skip_texts
from backend.runtime.graphs.pauses import (
    Answer,
    Answers,
    Graph,
    GraphPaused,
    has_breakpoints,
    pauses_of,
    resume_input,
)
from backend.runtime.turns.live import LiveTurn
from backend.runtime.turns.protocol_events import token_of
from backend.runtime.turns.work import first_config, first_input, has_begun


async def no_answers(thread_id: str, pauses: Sequence[str]) -> Mapping[str, Answer]:  # noqa: ARG001  # prescribed
    """Of whom nobody has asked anything."""
    return {}


async def run_graph(
    graph: Graph,
    config: RunnableConfig,
    graph_input: Any,
    observer: AgentObserver,
    *,
    context: Mapping[str, Any] | None,
    resumes: bool,
    answers: Answers = no_answers,
    tokens: bool = True,
    mapping: Mapping[str, str] | None = None,
    largest: SizeLimit = LARGEST,
    live: LiveTurn | None = None,
) -> Any:
    """Run the graph and return its output as JSON. Nodes, tokens and usage are reported to the observer.

    Without `tokens`, models don't stream their answers, which saves most of an answer's CPU time. If it `resumes`,
    LangGraph runs only what is left of the thread: nothing, if the graph has come to its end. Where the thread waits
    for people, it goes on with their `answers`. `live` is the turn of a conversation, to whose clients it is streamed.
    `mapping` picks and renames parts of the output:
    `{"answer": "messages.-1.content"}`. `largest` limits the output.

    Raises `GraphPaused` when the graph waits for people, whatever a node raises, `UnstorableOutputError` naming a value
    that can't be stored, and `InputError` naming an input that can't be kept or a path of the mapping that doesn't
    exist.
    """
    writers: dict[str, str] = {}
    saved = await graph.aget_state(config) if resumes else None
    if saved is not None and saved.created_at is not None and (live is None or has_begun(live.turn, saved)):
        # Not `next`: it lacks nodes whose writes are kept while the step's checkpoint is not, because of a kill.
        if not saved.tasks:
            return await _returned(graph, saved.values, mapping, observer, writers, largest)
        if any(task.interrupts or task.state for task in saved.tasks) or has_breakpoints(graph):
            saved = await graph.aget_state(config, subgraphs=True)
            graph_input = await resume_input(graph, saved, config["configurable"]["thread_id"], answers)
        else:
            graph_input = None
    elif live is not None:
        graph_input, config = first_input(live.turn, graph_input), first_config(live.turn, config)
    if context is None and graph.context_schema is not None:
        context = _default_context(graph.context_schema)
    output: Any = None
    skip_texts()
    modes: list[StreamMode] = ["tasks", "messages", "custom", "values"] if tokens else ["tasks", "values"]
    durability = graph.checkpointer.durability if isinstance(graph.checkpointer, BatchedSaver) else None
    kept = durability not in (None, "exit")
    stream: Any
    if live is not None:
        stream = live.parts(graph, graph_input, config, context=context, modes=modes, durability=durability)
    else:
        stream = graph.astream(
            graph_input, config, context=context, stream_mode=modes, subgraphs=True, durability=durability
        )
    names: dict[str, str] = {}  # of executions of nodes
    running: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)  # the same, of those that run, by namespace
    paused = False
    started: set[str] = set()  # the root's nodes; one whose subgraph stopped at a breakpoint doesn't finish
    try:
        async with aclosing(stream):  # an error in here stops the nodes that still run
            async for part in stream:
                namespace, mode, chunk = cast(tuple[tuple[str, ...], str, Any], part)
                if mode == "messages":
                    message, metadata = chunk
                    if text := token_of(message):
                        observer.token(metadata, text)
                elif mode == "custom":
                    # LangGraph doesn't say which node has written it; often only one can have.
                    nodes = set(running[namespace].values())
                    observer.custom(nodes.pop() if len(nodes) == 1 else None, chunk)
                    await observer.room()
                elif mode == "tasks":
                    if "triggers" in chunk:
                        if not namespace:
                            started.add(chunk["id"])
                        name = node_path(namespace, chunk["name"])
                        names[chunk["id"]] = running[namespace][chunk["id"]] = name
                        parent = namespace[-1].partition(":")[2] if namespace else None
                        observer.node_started(chunk["id"], name, chunk["input"], parent, kept=kept)
                    elif chunk.get("interrupts"):
                        paused = True
                        running[namespace].pop(chunk["id"], None)
                    else:
                        running[namespace].pop(chunk["id"], None)
                        observer.node_finished(chunk["id"], chunk.get("error"), chunk.get("result"))
                        writers.update(dict.fromkeys(_channels(chunk.get("result")), names.get(chunk["id"], "")))
                        started.discard(chunk["id"])
                    await _check_kept(graph, config)
                    await observer.room()
                elif mode == "values" and not namespace:
                    output = chunk
        if isinstance(graph.checkpointer, BatchedSaver):
            await graph.checkpointer.flush()
    except NotKeptError as error:
        raise _not_kept(error, names, observer) from None
    except GraphRecursionError:
        raise BudgetExceededError(
            f"the graph was not done after {config.get('recursion_limit')} steps; if it does come to an end, raise "
            "VISUAL_AI_MAX_STEPS, or give the graph a recursion_limit of its own"
        ) from None
    if paused or started or has_breakpoints(graph):
        await _check_paused(graph, config, answers)
    return await _returned(graph, output, mapping, observer, writers, largest)


async def _check_paused(graph: Graph, config: RunnableConfig, answers: Answers) -> None:
    """Raise `GraphPaused` if the graph, which has stopped, has not come to its end."""
    if not hasattr(graph.checkpointer, "aput"):
        raise GraphPaused(())
    state = await graph.aget_state(config, subgraphs=True)
    if state.next:
        raise GraphPaused(await pauses_of(graph, state, config["configurable"]["thread_id"], answers))


async def _check_kept(graph: Graph, config: RunnableConfig) -> None:
    """Raise `NotKeptError` if the graph has a value that its checkpoints can't hold, before the next node begins."""
    if isinstance(graph.checkpointer, BatchedSaver):
        await graph.checkpointer.taken()
        refused = graph.checkpointer.refused.get(config["configurable"]["thread_id"])
        if refused is not None:
            raise refused


async def check_input(input_data: Any, largest: SizeLimit = LARGEST) -> None:
    """Raise `InputError` naming a part of an agent's input that could be kept nowhere, before anything is paid for."""
    try:
        await apart(input_data, partial(to_json, input_data, limit=largest))
    except NoJsonFormError as error:
        raise InputError(error.fault, field=f"input_data{_pointer(error.path)}") from None


def _default_context(schema: Any) -> dict[str, Any] | None:
    """An empty context if all of its fields have defaults, which is what LangGraph's server passes as well."""
    try:
        schema()
    except (TypeError, ValueError):
        return None
    return {}


async def _returned(
    graph: Graph,
    state: Any,
    mapping: Mapping[str, str] | None,
    observer: AgentObserver,
    writers: Mapping[str, str],
    largest: SizeLimit,
) -> Any:
    """The part of a state that the graph's output schema and the mapping name, as JSON."""
    if isinstance(state, Mapping) and not isinstance(graph.output_channels, str):
        named = {path.partition(".")[0] for path in mapping.values()} if mapping else None
        state = {
            name: state[name] for name in graph.output_channels if name in state and (named is None or name in named)
        }
    nulled: list[Path] = []
    try:
        output = await apart(state, partial(to_json, state, nulled, for_xcom=True, limit=largest))
    except NoJsonFormError as error:
        observer.failed_node = node = writers.get(str(error.path[0])) if error.path else None
        by = f", which the node {node!r} wrote," if node else ""
        raise UnstorableOutputError(
            f"the output can't be passed on: {_pointer(error.path) or 'all of it'}{by} {error.fault}{_advice(observer)}"
        ) from None
    if nulled:
        places = ", ".join(_pointer(path) or "the output" for path in nulled[:3])
        more = f" and {len(nulled) - 3} more" if len(nulled) > 3 else ""
        observer.noticed(f"NaN became null, because JSON has none: {places}{more}")
    return {name: _follow(output, path) for name, path in mapping.items()} if mapping else output


def _not_kept(error: NotKeptError, names: Mapping[str, str], observer: AgentObserver) -> Exception:
    if error.source == "input":
        path = error.path[1:] if error.path[:1] == (START,) else error.path
        return InputError(error.fault, field=f"input_data{_pointer(path)}")
    place = _pointer(error.path)
    observer.failed_node = node = names.get(error.source)
    what = f"the node {node!r} returned" if node else "a reducer of the state made"
    return UnstorableOutputError(f"{what} what no checkpoint can keep: {place} {error.fault}{_advice(observer)}")


def _advice(observer: AgentObserver) -> str:
    """What the user of a built-in agent can do, whose nodes are not theirs to change."""
    own = observer.place.agent_type == "graph"
    return "" if own else " (if the model wrote it: ask for plain text in the system_prompt, or name another model)"


def _channels(result: Any) -> Iterable[str]:
    """The channels that a node wrote."""
    return result if isinstance(result, Mapping) else ()


def _pointer(path: Path) -> str:
    """The JSON pointer of a value, shortened to what a message can hold."""
    shown = [step if isinstance(step, int) or len(step) <= 100 else f"{step[:100]}…" for step in path[:10]]
    return pointer(*shown) + ("/…" if len(path) > 10 else "")


def _follow(output: Any, path: str) -> Any:
    value = output
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise InputError(f"{path!r} leads nowhere: there is no {step!r}", field="output_mapping") from None
    return value
