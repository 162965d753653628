"""What a forked run does differently: its threads begin as copies of the source run's, and one state is changed.

The task that was forked gets its agent's thread up to the checkpoint, and those of the agents that don't depend on it
as they are. Any other task gets all of its threads if it had succeeded in the source run and is asked the same, so that
it returns its result again. Copies are made once, in the transaction of one try: a later one finds them and goes on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.constants import START
from langgraph.errors import InvalidUpdateError
from langgraph.types import Command, StateSnapshot
from sqlalchemy import Connection

from backend.checkpoints.batched_saver import BatchedSaver
from backend.core.errors.input_error import InputError
from backend.core.run_envelope import Fork
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.runs import forks
from backend.db.runs.threads import Claim, thread_of
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.pauses import Graph
from backend.runtime.specs import AgentSpec

FIELD = "fork"


def forked_task(task: TaskContext) -> Fork | None:
    """The fork, if this is the task instance that was forked."""
    fork = task.fork
    return fork if fork is not None and (fork.task_id, fork.map_index) == (task.task_id, task.map_index) else None


async def copy_threads(
    database: Database,
    task: TaskContext,
    claim: Claim,
    threads: Sequence[str],
    digest: str,
    *,
    unaffected: Collection[str] | None = (),
) -> bool:
    """Begin the task's `threads` as copies of those in the source run; returns whether there is something to resume.

    `unaffected` are those that don't depend on the forked agent; None: those that had begun before it. `digest` is that
    of what the task's agents are asked. Raises `InputError` when the fork's checkpoint has been deleted meanwhile.
    """
    fork = task.fork
    if fork is None:
        return False
    here = forked_task(task)
    source = thread_of(task.dag_id, fork.dag_run_id, task.task_id, task.map_index)

    def renamed(thread: str) -> str:
        return source + thread[len(task.thread_id) :]

    def write(connection: Connection) -> bool:
        if forks.any_kept(connection, threads):
            return True  # by an earlier try
        known = forks.source(connection, source)
        if known is None:
            if here is not None and here.checkpoint_id is not None:
                raise _deleted(here)
            return False
        if here is None:
            if not known.completed or known.input_hash != digest:
                return False
            whole = {renamed(thread): thread for thread in threads if renamed(thread) in known.agents}
            return forks.copy(connection, claim, whole)
        forked = task.thread_id + here.thread
        others = [thread for thread in threads if thread != forked and renamed(thread) in known.agents]
        if unaffected is None:
            begun = forks.begun_before(connection, [renamed(thread) for thread in others], renamed(forked))
            others = [thread for thread in others if renamed(thread) in begun]
        else:
            others = [thread for thread in others if thread in unaffected]
        copied = forks.copy(connection, claim, {renamed(thread): thread for thread in others})
        if here.checkpoint_id is None:
            return copied
        part = {renamed(forked): forked}
        if not forks.copy(connection, claim, part, last=here.checkpoint_id, root=here.root_id):
            raise _deleted(here)
        return True

    return await retry_until_available(partial(database.run, write))


def forked_spec(spec: AgentSpec, task: TaskContext) -> AgentSpec:
    """The agent with the model and the system prompt of the fork, if it is the one that was forked.

    A graph of the user's own gets them in its context, where LangGraph's templates have them; see `check_context`.
    """
    fork = _of_agent(spec, task)
    if fork is None or not (fork.model or fork.system_prompt):
        return spec
    if spec.graph is not None:
        given = {"model": fork.model, "system_prompt": fork.system_prompt}
        context = {**(spec.context or {}), **{name: value for name, value in given.items() if value}}
        return replace(spec, context=context)
    config = {**spec.config, "system_prompt": fork.system_prompt} if fork.system_prompt else spec.config
    return replace(spec, model=fork.model or spec.model, config=config)


def check_context(graph: Graph, spec: AgentSpec, task: TaskContext) -> None:
    """Raise `InputError` if the fork names a model or a prompt that a graph of the user's own has no place for."""
    fork = _of_agent(spec, task)
    if fork is None or spec.graph is None:
        return
    schema = graph.context_schema
    known = {*getattr(schema, "model_fields", ()), *getattr(schema, "__annotations__", ())}
    for name in ("model", "system_prompt"):
        if getattr(fork, name) and name not in known:
            detail = f"has no effect: the graph makes its models itself, and its context has no {name!r}"
            raise InputError(detail, field=f"{FIELD}.{name}")


async def change_state(graph: Graph, config: RunnableConfig, task: TaskContext, given: Any) -> None:
    """Write the fork's values to the state from which the agent goes on, as `update_state` of its graph does.

    If the run has another input, so are those parts of `given` in which it differs from what the agent was given in the
    source run. Nothing is done for other agents, and on later tries. Raises `InputError` naming what can't be written.
    """
    fork = forked_task(task)
    thread = config["configurable"]["thread_id"]
    if fork is None or not fork.changes_state or thread != task.thread_id + fork.thread:
        return
    place: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": fork.namespace}}
    try:
        before = await graph.aget_state(place)
        if before.config["configurable"].get("checkpoint_id") != fork.checkpoint_id:
            return  # an earlier try has changed it, or gone on
        first = await _input_of(graph, before)
        values = {**(_changed(graph, first, before, given) if fork.other_input else {}), **(fork.values or {})}
        if not values:
            return
        if before.next == (START,) and fork.as_node is None:  # else the values would be all of its input
            values = {**first, **values}
        if not fork.namespace:
            _check_names(graph, values)
        made = await graph.aupdate_state(place, values, fork.as_node)
        after = await graph.aget_state({"configurable": {**place["configurable"], **made["configurable"]}})
        if before.next and not after.next and fork.as_node is None:
            # The node before chose its successor itself (`Command(goto=…)`): nothing else leads there.
            await graph.aupdate_state(before.config, Command(update=values, goto=list(before.next)), None)
    except (InvalidUpdateError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        text = str(error).strip() or type(error).__name__
        raise InputError(f"can't be written to the state: {text}", field=f"{FIELD}.values") from None


def _of_agent(spec: AgentSpec, task: TaskContext) -> Fork | None:
    fork = forked_task(task)
    return fork if fork is not None and fork.agent in (None, spec.name) else None


def _deleted(fork: Fork) -> InputError:
    return InputError(f"names the checkpoint {fork.checkpoint_id}, which has been deleted meanwhile", field=FIELD)


def _check_names(graph: Graph, values: Mapping[str, Any]) -> None:
    known = _state_names(graph)
    for name in values:
        if name not in known:
            detail = f"has {name!r}, which is not in the graph's state; there are {', '.join(sorted(known))}"
            raise InputError(detail, field=f"{FIELD}.values")


async def _input_of(graph: Graph, state: StateSnapshot) -> Mapping[str, Any]:
    """What the graph was given, as far as it is still in its checkpoints."""
    thread = state.config["configurable"]["thread_id"]
    place: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    if isinstance(graph.checkpointer, BatchedSaver):
        async for one in graph.checkpointer.alist(place, filter={"source": "input"}, limit=1):
            first = one.checkpoint["channel_values"].get(START)
            return first if isinstance(first, Mapping) else {}
    return {}


def _changed(graph: Graph, first: Mapping[str, Any], before: StateSnapshot, given: Any) -> dict[str, Any]:
    """The parts of an input that are in the graph's state, and not what they were."""
    if not isinstance(given, Mapping):
        return {}
    known: Mapping[str, Any] = first or (before.values if isinstance(before.values, Mapping) else {})
    names = [name for name in _state_names(graph) if name in given]
    return {name: given[name] for name in names if name not in known or known[name] != given[name]}


def _state_names(graph: Graph) -> list[str]:
    """The channels that are the graph's own; LangGraph's are for its control flow."""
    return [name for name in graph.channels if not name.startswith(("__", "branch:", "join:"))]
