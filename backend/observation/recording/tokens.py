"""Sends the tokens of an agent's models to the stream, several times a second.

An agent may call models more than once, and a call may take several attempts. Each event therefore has a `call` and an
`attempt`: of each call, only the text of the highest attempt counts, so that a client can drop the text of a failed
attempt. An attempt that has failed is superseded at once, by an event without text.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.events import NewEvent
from backend.db.runs import traces
from backend.db.runs.traces import Place
from backend.models.attempts import ATTEMPT_KEY, CALL_KEY

TOKEN_INTERVAL = 0.05
"""Seconds between two `token` events of an agent, however many of its calls produce tokens at the same time."""

PIECE = 8_000
"""The longest text of one event, in characters, so that it is never cut, whatever they are. The answer of a model
that doesn't stream arrives at once."""


@dataclass(slots=True)
class _Call:
    """A model call that has produced text. `attempt` is the current one."""

    number: int
    node: str
    task_key: str
    attempt: int = 1
    restarts: int = 0  # how often its node was restarted
    has_text: bool = False


class TokenStream:
    """The tokens of one agent."""

    def __init__(self, put: Callable[[Sequence[NewEvent]], None], place: Place) -> None:
        self._put = put
        self._place = place
        self._calls: dict[str, _Call] = {}
        self._waiting: dict[tuple[str, int], list[str]] = {}
        self._halves: dict[tuple[str, int], str] = {}  # of surrogate pairs, whose other half is still to come
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0  # when the loop's clock allows another event

    def add(self, metadata: Mapping[str, Any], text: str) -> None:
        """Add a piece of an answer. Calls that a user's graph makes by itself can't be told apart within a node."""
        call = self._call(metadata)
        attempt = int(metadata.get(ATTEMPT_KEY, 1)) + call.restarts
        if attempt < call.attempt:
            # LangGraph delivers pieces through a queue, but the failure of their attempt is reported directly, so a
            # piece may arrive after it. It must not be taken for a piece of the next attempt.
            return
        call.attempt, call.has_text = attempt, True
        key = _key(metadata), call.attempt
        self._waiting.setdefault(key, []).append(self._halves.pop(key, "") + text)
        self._wait()

    def supersede_call(self, metadata: Mapping[str, Any]) -> None:
        """Drop the text of a failed attempt; another attempt follows."""
        self._supersede([(_key(metadata), self._call(metadata))])

    def supersede_nodes(self, task_keys: Iterable[str]) -> None:
        """Drop the text of failed executions of nodes, which are restarted."""
        keys = set(task_keys)
        found = [(key, call) for key, call in self._calls.items() if call.task_key in keys]
        self._supersede(found)
        for _, call in found:
            call.restarts += 1

    def flush(self, task_key: str | None = None) -> None:
        """Send the waiting text of one execution of a node, or all, so that it precedes the event of the end.

        Text that is sent early makes the next pause longer.
        """
        for key in [
            key for key in {**self._waiting, **self._halves} if task_key in (None, self._calls[key[0]].task_key)
        ]:
            self._send(key, last=True)
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._waiting:
            loop = asyncio.get_running_loop()
            # The first piece waits for the others of its interval as well.
            due = max(self._next, loop.time() + TOKEN_INTERVAL)
            self._timer = loop.call_at(due, self._send_in_turn)

    def _send_in_turn(self) -> None:
        """Send one event, for the call that has waited longest."""
        self._timer = None
        if self._waiting:
            self._send(next(iter(self._waiting)))
        self._wait()

    def _send(self, key: tuple[str, int], *, last: bool = False) -> None:
        text = self._halves.pop(key, "") + "".join(self._waiting.pop(key, ()))
        if not last and "\ud800" <= text[-1:] <= "\udbff":
            self._halves[key], text = text[-1], text[:-1]
        if not text:
            return
        self._next = max(self._next, asyncio.get_running_loop().time()) + TOKEN_INTERVAL
        call, attempt = key
        self._put([self._event(self._calls[call], attempt, piece) for piece in _pieces(text)])

    def _supersede(self, calls: Iterable[tuple[str, _Call]]) -> None:
        new = []
        for key, call in calls:
            self._waiting.pop((key, call.attempt), None)
            self._halves.pop((key, call.attempt), None)
            call.attempt += 1
            if call.has_text:
                call.has_text = False
                new.append(self._event(call, call.attempt, ""))
        if new:
            self._put(new)

    def _call(self, metadata: Mapping[str, Any]) -> _Call:
        key = _key(metadata)
        if key not in self._calls:
            node = traces.short_name(str(metadata.get("langgraph_node", "")))
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


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + PIECE
        if "\ud800" <= text[end - 1 : end] <= "\udbff":  # the first half of a surrogate pair
            end += 1
        yield text[start:end]
        start = end


def task_key(metadata: Mapping[str, Any]) -> str:
    """LangGraph's id of the node execution in which a callback fired."""
    return str(metadata.get("langgraph_checkpoint_ns", "")).rpartition("|")[2].rpartition(":")[2]


def _key(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get(CALL_KEY) or metadata.get("langgraph_checkpoint_ns", ""))
