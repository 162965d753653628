"""What a turn's agent does: its input, its config, and writing a state instead of running."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, Send, StateSnapshot, StateUpdate

from backend.core.errors.input_error import InputError
from backend.core.exact_json import to_json
from backend.core.turns import RUN_ID, Turn
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.pauses import Graph
from backend.runtime.remote.graph import RemoteGraph
from backend.runtime.specs import AgentSpec


def turn_spec(spec: AgentSpec, turn: Turn | None, task: TaskContext) -> AgentSpec:
    """The agent with what the turn says about its input, config and context."""
    if turn is None:
        return spec
    own, asked = spec.run_config, turn.config
    metadata = {**own.get("metadata", {}), **asked.get("metadata", {}), **turn.metadata, RUN_ID: turn.id}
    config: dict[str, Any] = {**own, **asked, "metadata": metadata}
    config["configurable"] = {**own.get("configurable", {}), **asked.get("configurable", {})}
    context = {**(spec.context or {}), **turn.context} if turn.context is not None else spec.context
    run_input = {name: task.run_input[name] for name in turn.names if name in task.run_input}
    given = {"run": run_input, "task": spec.input_data, "turn": turn.input}[turn.source]
    return replace(spec, run_config=config, context=context, input_data=given)


def turn_graph(graph: Graph, turn: Turn | None) -> Graph:
    """The graph with the turn's breakpoints."""
    if turn is not None and isinstance(graph, RemoteGraph):
        graph.stop_at(turn.interrupt_before, turn.interrupt_after)
        return graph
    stops: dict[str, Any] = {}
    if turn is not None and turn.interrupt_before is not None:
        stops["interrupt_before_nodes"] = turn.interrupt_before
    if turn is not None and turn.interrupt_after is not None:
        stops["interrupt_after_nodes"] = turn.interrupt_after
    return graph.copy(stops) if stops else graph


def first_input(turn: Turn, given: Any) -> Any:
    """What the graph is first run with. Raises `InputError` naming a part of a command that is none."""
    if turn.command is None:
        return given
    found = dict(turn.command)
    if "goto" in found:
        goto = found["goto"]
        found["goto"] = [_target(one) for one in goto] if isinstance(goto, list) else _target(goto)
    try:
        return Command(**{name: value for name, value in found.items() if value is not None or name == "resume"})
    except TypeError as error:
        raise InputError(f"is no command: {error}", field="command") from None


def first_config(turn: Turn, config: RunnableConfig) -> RunnableConfig:
    """The config with the checkpoint from which the turn goes on."""
    if turn.checkpoint_id is None:
        return config
    place = {"checkpoint_id": turn.checkpoint_id, "checkpoint_ns": turn.checkpoint_ns}
    return {**config, "configurable": {**config["configurable"], **place}}


def has_begun(turn: Turn, state: StateSnapshot) -> bool:
    """Whether the thread's latest state is one that this turn has written."""
    return (state.metadata or {}).get(RUN_ID) == turn.id


async def write_state(graph: Graph, config: RunnableConfig, turn: Turn) -> Any:
    """Write the turn's state; returns the values that the thread has then. Raises `InputError` naming what is wrong."""
    update = turn.update or {}
    place = first_config(turn, config)
    try:
        if (steps := update.get("supersteps")) is not None:
            await graph.abulk_update_state(place, [[_update(one) for one in step["updates"]] for step in steps])
        else:
            await graph.aupdate_state(place, update.get("values"), update.get("as_node"))
    except (InvalidUpdateError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"can't be written to the state: {error}", field="values") from None
    state = await graph.aget_state(config)
    return await asyncio.to_thread(to_json, state.values)


def _update(one: Mapping[str, Any]) -> StateUpdate:
    values = one.get("values")
    if (command := one.get("command")) is not None:
        values = first_input(Turn("", "", command=command), None)
    return StateUpdate(values, one.get("as_node"))


def _target(goto: Any) -> Any:
    if isinstance(goto, Mapping):
        return Send(goto["node"], goto.get("input"))
    if isinstance(goto, Sequence) and not isinstance(goto, str):
        return [_target(one) for one in goto]
    return goto
