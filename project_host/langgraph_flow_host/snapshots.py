"""States of a thread, and the places where it waits for people, as the task is told of them."""

from collections.abc import Mapping
from typing import Any

import langgraph.types
from langgraph.types import Command, Interrupt, PregelTask, StateSnapshot
from xxhash import xxh3_128_hexdigest

from langgraph_flow_host.saver import plain_metadata

_RESUME = "__resume__"
_IDS_COUNT_ANSWERS = hasattr(langgraph.types, "_interrupt_id")
"""Whether LangGraph gives each further `interrupt()` of a node another id. Older versions give all of them the same."""


class Snapshots:
    """The states of one graph. Each interrupt has an id of its own, whatever LangGraph's version."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver
        self._own_ids: dict[str, str] = {}

    def command(self, sent: Mapping[str, Any]) -> Command[Any]:
        """A command of the task, whose answers are by the ids that the task knows."""
        resume = sent["resume"]
        if isinstance(resume, Mapping):
            resume = {self._own_ids.get(name, name): value for name, value in resume.items()}
        return Command(update=sent["update"], resume=resume, goto=sent["goto"] or ())

    async def sent(self, state: StateSnapshot) -> dict[str, Any]:
        given = {} if _IDS_COUNT_ANSWERS else await self._answers(state)
        return {
            "values": state.values,
            # Older versions leave out a node that was given an answer and asks again.
            "next": list(dict.fromkeys([*state.next, *(task.name for task in state.tasks if task.interrupts)])),
            "config": _place(state.config),
            "metadata": None if state.metadata is None else plain_metadata(state.metadata),
            "created_at": state.created_at,
            "parent": _place(state.parent_config),
            "tasks": [await self._task(task, state, given.get(task.id, 0)) for task in state.tasks],
        }

    async def _task(self, task: PregelTask, state: StateSnapshot, answers: int) -> dict[str, Any]:
        inner = task.state
        parent = (state.config.get("configurable") or {}).get("checkpoint_ns") or ""
        path = f"{parent}|{task.name}:{task.id}" if parent else f"{task.name}:{task.id}"
        answered = answers - 1 if task.error and answers else answers
        return {
            "id": task.id,
            "name": task.name,
            "error": None if task.error is None else str(task.error),
            "interrupts": [self._interrupt(one, path, answered) for one in task.interrupts],
            "state": await self.sent(inner) if isinstance(inner, StateSnapshot) else _place(inner),
            "inner": isinstance(inner, StateSnapshot),
            # Older versions take an answer that a task was given for its result.
            "done": task.result is not None and not task.interrupts,
        }

    def _interrupt(self, one: Interrupt, path: str, answered: int) -> list[Any]:
        shown = one.id
        if answered and one.id == xxh3_128_hexdigest(path.encode()):
            shown = xxh3_128_hexdigest(f"{path}|{answered}".encode())
            self._own_ids[shown] = one.id
        return [one.value, shown, getattr(one, "response_schema", None)]

    async def _answers(self, state: StateSnapshot) -> dict[str, int]:
        """How many answers each task has been given that waits."""
        if self._saver is None or not any(task.interrupts for task in state.tasks):
            return {}
        kept = await self._saver.aget_tuple(state.config)
        writes = (kept.pending_writes if kept is not None else None) or ()
        return {
            task: len(value) if isinstance(value, list) else 1 for task, channel, value in writes if channel == _RESUME
        }


def _place(config: Any) -> Any:
    own = (config or {}).get("configurable") or {}
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return {"configurable": {name: own[name] for name in names if name in own}} if config else None
