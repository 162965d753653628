"""Where a graph stopped to ask people, and how it goes on once they have answered.

LangGraph tells the interrupts of a thread apart by an id that is the same when a node is run again and another for each
further `interrupt()` of the node. That id names a question for good, so that a try that is killed between an answer and
the next checkpoint gives the same answer to the same question, and to no other.

A node that fails after it was given an answer leaves both the answer and the interrupt in its checkpoint. LangGraph
would take an answer that is given again for that to the node's next question, so it is not given again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.serde.types import RESUME
from langgraph.pregel import Pregel
from langgraph.types import All, Command, Interrupt, PregelTask, StateSnapshot, _interrupt_id

from backend.core.asking.questions import Asked, asked, breakpoint_at
from backend.core.errors.input_error import InputError
from backend.core.exact_json import NoJsonFormError, to_json
from backend.core.large_values import apart

Graph = Pregel[Any, Any, Any, Any]


class GraphPaused(BaseException):  # like Airflow's TaskDeferred it is no error
    """The graph waits for people. Without `pauses` it keeps no state from which it could go on."""

    def __init__(self, pauses: Sequence["Pause"]) -> None:
        super().__init__(f"{len(pauses)} questions")
        self.pauses = tuple(pauses)


class GraphRejectedError(InputError):
    """A person decided that the graph must not go on. A retry doesn't help."""

    field = "graph"


@dataclass(frozen=True, slots=True)
class Pause:
    """A place where a graph waits. `id` tells it from the others of its thread, also in later tries."""

    id: str
    node: str | None
    asked: Asked


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person answered: the `value` for `interrupt()`, and at a breakpoint the `decision`."""

    value: Any
    decision: str | None
    by: str | None


class Answers(Protocol):
    """Finds the answers that have been given to some of a thread's pauses, by the pauses' ids."""

    async def __call__(self, thread_id: str, pauses: Sequence[str]) -> Mapping[str, Answer]: ...


def has_breakpoints(graph: Graph) -> bool:
    """Whether the graph itself was compiled with `interrupt_before` or `interrupt_after`."""
    return bool(graph.interrupt_before_nodes or graph.interrupt_after_nodes)


async def resume_input(graph: Graph, state: StateSnapshot, thread_id: str, answers: Answers) -> Command[Any] | None:
    """What to run a thread with that an earlier run has left in this state, which is that with its subgraphs.

    LangGraph passes a breakpoint whenever a thread is run again, also if nobody was asked because the process was
    killed before; so an answer is looked for here. Raises `GraphPaused` if the thread can't get any further without
    one, `GraphRejectedError`, and `InputError` naming what is asked if it has no JSON form.
    """
    taken = await _taken(graph, state)
    interrupts = [await _pause(one, node) for one, node in _interrupts(state.tasks) if one.id not in taken]
    stops = await _stops(graph, graph, state)
    given = await _given([*interrupts, *stops, _unknown_stop(state)], thread_id, answers)
    if waiting := [stop for stop in stops if stop.id not in given]:
        raise GraphPaused(waiting)
    values = {pause.id: given[pause.id].value for pause in interrupts if pause.id in given}
    waiting = [pause for pause in interrupts if pause.id not in values]
    if waiting and all(task.interrupts for task in _unfinished(state)):
        # Whoever has been answered would run up to its next question, and be run again for the others' sake.
        raise GraphPaused(_once(waiting))
    return Command(resume=values) if values else None


async def pauses_of(graph: Graph, state: StateSnapshot, thread_id: str, answers: Answers) -> list[Pause]:
    """What a graph waits for that has stopped in this state before its end. Raises as `resume_input` does."""
    interrupts = [await _pause(one, node) for one, node in _interrupts(state.tasks)]
    stops = await _stops(graph, graph, state)
    given = await _given(stops, thread_id, answers)
    waiting = [*interrupts, *(stop for stop in stops if stop.id not in given)]
    return _once(waiting) or [_unknown_stop(state)]


async def _taken(graph: Graph, state: StateSnapshot) -> set[str]:
    """The ids of interrupts whose answers the checkpoint holds already, because their nodes went on and then failed."""
    found: set[str] = set()
    if not isinstance(graph.checkpointer, BaseCheckpointSaver) or not any(
        task.interrupts or task.state for task in state.tasks
    ):
        return found
    kept = await graph.checkpointer.aget_tuple(state.config)
    writes = (kept.pending_writes if kept is not None else None) or ()
    given = {task: len(value) if isinstance(value, list) else 1 for task, channel, value in writes if channel == RESUME}
    parent = state.config.get("configurable", {}).get("checkpoint_ns") or ""
    for task in state.tasks:
        namespace = f"{parent}|{task.name}:{task.id}" if parent else f"{task.name}:{task.id}"
        found.update(_interrupt_id(namespace, index) for index in range(given.get(task.id, 0)))
        if isinstance(task.state, StateSnapshot):
            found |= await _taken(graph, task.state)
    return found


async def _given(pauses: Sequence[Pause], thread_id: str, answers: Answers) -> Mapping[str, Answer]:
    given = await answers(thread_id, [pause.id for pause in pauses])
    for pause in pauses:
        answer = given.get(pause.id)
        if pause.asked.kind == "breakpoint" and answer is not None and answer.decision == "reject":
            raise GraphRejectedError(f"{answer.by or 'nobody'} decided not to go on with {pause.node}")
    return given


async def _stops(root: Graph, graph: Graph, state: StateSnapshot, path: str = "") -> list[Pause]:
    """The breakpoints at which a thread of `root` stands: those of `graph`, whose state this is, and of its subgraphs.

    They include those that it has passed already in the step that it is in.
    """
    left = _unfinished(state)
    if not left:
        return []
    names = {task.name for task in left}
    stops = _names(graph.interrupt_before_nodes, names)
    if graph.interrupt_after_nodes and state.parent_config is not None:
        before = await root.aget_state(state.parent_config)
        stops = stops or _names(graph.interrupt_after_nodes, {task.name for task in before.tasks})
    found = [_stop(_checkpoint(state), [path + name for name in sorted(names)])] if stops else []
    inner = dict(graph.get_subgraphs()) if any(isinstance(task.state, StateSnapshot) for task in left) else {}
    for task in left:
        if isinstance(task.state, StateSnapshot) and (subgraph := inner.get(task.name)) is not None:
            found += await _stops(root, cast(Graph, subgraph), task.state, f"{path}{task.name}/")
    return found


def _unknown_stop(state: StateSnapshot) -> Pause:
    """A stop of a graph that LangGraph doesn't list among the subgraphs, because a node makes it when it runs."""
    return _stop(" ".join(_checkpoints(state)), [task.name for task in _unfinished(state)])


def _stop(place: str, nodes: list[str]) -> Pause:
    return Pause(f"breakpoint {place}", nodes[0] if nodes else None, breakpoint_at(nodes, None))


def _names(breakpoints: All | Sequence[str], nodes: Iterable[str]) -> bool:
    if breakpoints == "*":
        return any(not node.startswith("__") for node in nodes)
    return not set(breakpoints).isdisjoint(nodes)


def _unfinished(state: StateSnapshot) -> list[PregelTask]:
    return [task for task in state.tasks if task.result is None]


def _checkpoint(state: StateSnapshot) -> str:
    return str(state.config.get("configurable", {}).get("checkpoint_id"))


def _checkpoints(state: StateSnapshot) -> Iterator[str]:
    yield _checkpoint(state)
    for task in state.tasks:
        if isinstance(task.state, StateSnapshot):
            yield from _checkpoints(task.state)


def _once(pauses: Sequence[Pause]) -> list[Pause]:
    """A subgraph's interrupts are also those of the node around it."""
    return list({pause.id: pause for pause in pauses}.values())


def _interrupts(tasks: Iterable[PregelTask]) -> Iterator[tuple[Interrupt, str]]:
    """The interrupts of the tasks, each with the node that asks: the innermost one."""
    for task in tasks:
        if isinstance(task.state, StateSnapshot):
            inner = {one.id: (one, node) for one, node in _interrupts(task.state.tasks)}
            for one, node in inner.values():
                yield one, f"{task.name}/{node}"
            yield from ((one, task.name) for one in task.interrupts if one.id not in inner)
        else:
            yield from ((one, task.name) for one in task.interrupts)


async def _pause(interrupt: Interrupt[Any], node: str) -> Pause:
    try:
        content = await apart(interrupt.value, partial(to_json, interrupt.value))
    except NoJsonFormError as error:
        raise InputError(f"what interrupt() asks in {node!r} can't be shown: it {error.fault}", field="graph") from None
    return Pause(interrupt.id, node, asked(content, interrupt.response_schema, node))
