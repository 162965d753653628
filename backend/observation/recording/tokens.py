"""The words of an agent's models on their way to the stream, a few times a second."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.events import NewEvent
from backend.db.runs import traces
from backend.db.runs.traces import Place
from backend.models.attempts import ATTEMPT_KEY, CALL_KEY

TOKEN_INTERVAL = 0.05
"""Seconds between two `token` events of an agent: at most 20 a second, however many of its calls speak at once."""


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
        self._next = 0.0  # when the loop's clock allows another event

    def add(self, metadata: Mapping[str, Any], text: str) -> None:
        """A piece of an answer; pieces are sent together. Of calls that aren't ours, a node's are one."""
        call = self._call(metadata)
        attempt = int(metadata.get(ATTEMPT_KEY, 1)) + call.again
        if attempt < call.attempt:
            # LangGraph delivers pieces through a queue, but the failure of their attempt is reported directly, so a
            # piece may arrive after it. It must not be taken for a piece of the next attempt.
            return
        call.attempt, call.said = attempt, True
        self._waiting.setdefault((_key(metadata), call.attempt), []).append(text)
        self._wait()

    def supersede_call(self, metadata: Mapping[str, Any]) -> None:
        """An attempt at a call failed and another one follows."""
        self._supersede([(_key(metadata), self._call(metadata))])

    def supersede_nodes(self, task_keys: Iterable[str]) -> None:
        """Executions of nodes failed, and the nodes begin anew."""
        keys = set(task_keys)
        found = [(key, call) for key, call in self._calls.items() if call.task_key in keys]
        self._supersede(found)
        for _, call in found:
            call.again += 1

    def flush(self, task_key: str | None = None) -> None:
        """Send what waits of one execution of a node, or all: the last words stand before the end is told.

        What is told early is made up for by a longer pause.
        """
        for key in [key for key in self._waiting if task_key in (None, self._calls[key[0]].task_key)]:
            self._send(key)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._waiting:
            loop = asyncio.get_running_loop()
            # The pieces of one interval wait for each other, also the first.
            due = max(self._next, loop.time() + TOKEN_INTERVAL)
            self._timer = loop.call_at(due, self._send_in_turn)

    def _send_in_turn(self) -> None:
        """One event, of the call that has waited longest."""
        self._timer = None
        if self._waiting:
            self._send(next(iter(self._waiting)))
        self._wait()

    def _send(self, key: tuple[str, int]) -> None:
        self._next = max(self._next, asyncio.get_running_loop().time()) + TOKEN_INTERVAL
        call, attempt = key
        self._put([self._event(self._calls[call], attempt, "".join(self._waiting.pop(key)))])

    def _supersede(self, calls: Iterable[tuple[str, _Call]]) -> None:
        new = []
        for key, call in calls:
            self._waiting.pop((key, call.attempt), None)
            call.attempt += 1
            if call.said:
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
