"""The words of an agent's models on their way to the stream, a few times a second."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.agents.attempts import ATTEMPT_KEY, CALL_KEY
from backend.core.events import NewEvent
from backend.db import traces
from backend.db.traces import Place

TOKEN_INTERVAL = 0.05
"""Seconds between two `token` events of a call: at most 20 a second."""


@dataclass(slots=True)
class _Call:
    """A model call that has said something. `attempt` is the one that speaks."""

    number: int
    node: str
    task_key: str
    attempt: int = 1
    again: int = 0  # how often the node around it was begun anew
    said: bool = False


class TokenStream:
    """Numbers an agent's model calls, so that a client can drop what an attempt said that another one follows.

    Of each call only the text of the highest attempt counts. An attempt that is superseded is told of at once, by an
    event without text.
    """

    def __init__(self, put: Callable[[Sequence[NewEvent]], None], place: Place) -> None:
        self._put = put
        self._place = place
        self._calls: dict[str, _Call] = {}
        self._waiting: dict[tuple[str, int], list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, metadata: Mapping[str, Any], text: str) -> None:
        """A piece of an answer; pieces are sent together. Of calls that aren't ours, a node's are one."""
        call = self._call(metadata)
        call.attempt = max(call.attempt, int(metadata.get(ATTEMPT_KEY, 1)) + call.again)
        call.said = True
        self._waiting.setdefault((_key(metadata), call.attempt), []).append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOKEN_INTERVAL, self.flush)

    def supersede_call(self, metadata: Mapping[str, Any]) -> None:
        """An attempt at a call failed and another one follows."""
        call = self._calls.get(_key(metadata))
        if call is not None:
            self._supersede([(_key(metadata), call)])

    def supersede_nodes(self, task_keys: Iterable[str]) -> None:
        """Executions of nodes failed, and the nodes begin anew."""
        keys = set(task_keys)
        found = [(key, call) for key, call in self._calls.items() if call.task_key in keys]
        self._supersede(found)
        for _, call in found:
            call.again += 1

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        if waiting:
            self._put(
                [self._event(self._calls[key], attempt, "".join(text)) for (key, attempt), text in waiting.items()]
            )

    def _supersede(self, calls: Iterable[tuple[str, _Call]]) -> None:
        new = []
        for key, call in calls:
            if call.said:
                self._waiting.pop((key, call.attempt), None)
                call.attempt += 1
                call.said = False
                new.append(self._event(call, call.attempt, ""))
        if new:
            self._put(new)

    def _call(self, metadata: Mapping[str, Any]) -> _Call:
        key = _key(metadata)
        if key not in self._calls:
            node = str(metadata.get("langgraph_node", ""))
            self._calls[key] = _Call(len(self._calls) + 1, node, task_key(metadata))
        return self._calls[key]

    def _event(self, call: _Call, attempt: int, text: str) -> NewEvent:
        place = self._place
        return NewEvent(
            "token",
            {
                "task_id": place.task_id,
                "map_index": place.map_index,
                "try_number": place.try_number,
                "agent": traces.label(place.agent, place.item),
                "node": call.node,
                "call": call.number,
                "attempt": attempt,
                "text": text,
            },
        )


def task_key(metadata: Mapping[str, Any]) -> str:
    """LangGraph's id of the node execution in which a callback fired."""
    return str(metadata.get("langgraph_checkpoint_ns", "")).rpartition("|")[2].rpartition(":")[2]


def _key(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(CALL_KEY) or metadata.get("langgraph_checkpoint_ns", ""))
