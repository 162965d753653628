"""Watches one agent's graph run and tells the recorder: nodes, tokens, usage, cost and the outcome."""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from sqlalchemy import Connection

from backend.agents.prices import cost_usd
from backend.agents.recorder import Recorder, RunUsage, TraceRow
from backend.core.events import NewEvent
from backend.core.workflow_error_handler import Classified
from backend.db import errors, traces
from backend.db.traces import Place

TOKEN_INTERVAL = 0.05
"""Seconds between two `token` events of a node: at most 20 a second."""


@dataclass(slots=True)
class Usage:
    """Tokens and their price; `cost` is None as soon as one call's price is unknown."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = Decimal(0)
    calls: int = 0

    def add(self, input_tokens: int, output_tokens: int, cost: Decimal | None) -> None:
        """Count one model call."""
        self.calls += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost

    @classmethod
    def sum(cls, usages: Iterable["Usage"]) -> "Usage":
        """What several used together; the cost is unknown as soon as one of those that called a model is."""
        total = cls()
        for usage in usages:
            total.input_tokens += usage.input_tokens
            total.output_tokens += usage.output_tokens
            total.calls += usage.calls
            if usage.calls:
                total.cost = None if total.cost is None or usage.cost is None else total.cost + usage.cost
        return total

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars as JSON has it; None when unknown or nothing was called."""
        return float(self.cost) if self.cost is not None and self.calls else None


@dataclass(slots=True)
class _Span:
    """A row of `agent_traces` on its way."""

    place: Place
    node: str | None
    model: str | None
    notice: str | None
    trace_id: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "running"
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    finished_at: datetime | None = None
    latency_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    given: Any = None

    def close(self, state: str) -> None:
        self.state = state
        self.latency_ms = round((time.monotonic() - self.began) * 1000, 3)

    def event(self) -> NewEvent:
        row = {
            "task_id": self.place.task_id,
            "map_index": self.place.map_index,
            "try_number": self.place.try_number,
            "agent_name": self.place.agent,
            "agent_type": self.place.agent_type,
            "item_index": self.place.item,
            "node": self.node,
            "state": self.state,
            "model": self.model,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cost_usd": self.usage.cost_usd,
            "latency_ms": self.latency_ms,
            "notice": self.notice,
        }
        return NewEvent("agent_update", traces.payload(row))

    def values(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "node": self.node,
            "model": self.model,
            "state": self.state,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "latency_ms": self.latency_ms,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cost_usd": self.usage.cost if self.usage.calls else None,
            "notice": self.notice,
            "trace_id": self.trace_id,
        }


class AgentObserver(AsyncCallbackHandler):
    """Also the LangChain callback handler that counts what the models used, in whatever node they were called."""

    raise_error = False
    run_inline = True  # in order, on the graph's own loop

    def __init__(
        self, recorder: Recorder, place: Place, *, model: str | None, trace_id: str, brief: bool = False
    ) -> None:
        """`brief` writes each row once, when it is complete, and tells the stream nothing: for one of very many."""
        self._recorder = recorder
        self._brief = brief
        self._place = place
        self.trace_id = trace_id
        self._agent = _Span(place, None, model, None, trace_id)
        self._before = Usage()
        self._failed_node: str | None = None
        self._loose = Usage()  # of calls that belong to no node
        self._nodes: dict[str, _Span] = {}
        self._calls: dict[uuid.UUID, tuple[str, str | None]] = {}  # the node and the model of calls under way
        self._tokens: dict[str, list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def used_before(self, usage: Usage) -> None:
        """Count what earlier tries of the task used; the run's totals have it already."""
        self._before = usage

    @property
    def usage(self) -> Usage:
        """What the agent used in this try."""
        return self._agent.usage

    @property
    def total_usage(self) -> Usage:
        """What the agent used in all tries of the task."""
        now, before = self._agent.usage, self._before
        cost = None if now.cost is None or (before.calls and before.cost is None) else now.cost + (before.cost or 0)
        return Usage(
            now.input_tokens + before.input_tokens,
            now.output_tokens + before.output_tokens,
            cost,
            now.calls + before.calls,
        )

    @property
    def model(self) -> str | None:
        """The model that the agent uses; of a graph that uses several, the first."""
        return self._agent.model

    @property
    def over(self) -> bool:
        """Whether the agent has ended, however."""
        return self._agent.state != "running"

    @property
    def notice(self) -> str | None:
        """What the user has to know about the choice of the model."""
        return self._agent.notice

    def uses(self, model: str | None, notice: str | None) -> None:
        """The model that was chosen, before the agent begins."""
        self._agent.model, self._agent.notice = model, notice

    def begin(self, given: Any) -> None:
        """The agent starts with this input."""
        self._start(self._agent, given)

    def node_started(self, key: str, name: str, given: Any) -> None:
        """A node's execution begins; `key` is LangGraph's id of it."""
        span = self._nodes[key] = _Span(self._place, name, None, None, self.trace_id)
        self._start(span, given)

    def node_finished(self, key: str, error: Any, output: Any) -> None:
        """A node's execution is over."""
        span = self._nodes.pop(key, None)
        if span is not None:
            self._flush_tokens()
            span.close("failed" if error else "success")
            if error:
                self._failed_node = span.node
            self._finish(span, output)
            self._add_to_run(span.usage)

    def token(self, node: str, text: str) -> None:
        """A piece of a model's answer; pieces are sent together every 50 ms."""
        self._tokens.setdefault(node, []).append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOKEN_INTERVAL, self._flush_tokens)

    def finish(self, state: str, output: Any) -> None:
        """The agent is over; nodes that are still open share its fate."""
        self._flush_tokens()
        for span in self._nodes.values():
            span.close(state)
            self._finish(span, None)
            self._add_to_run(span.usage)
        self._nodes.clear()
        self._agent.close(state)
        self._finish(self._agent, output)
        self._add_to_run(self._loose)

    def failed(self, found: Classified, action: str, *, silent: bool = False) -> None:
        """Record the error that ended the agent; a `silent` one isn't told on the stream."""
        model, place = self._agent.model, self._place
        node = self._failed_node or next((span.node for span in self._nodes.values()), None)

        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            payload = errors.add(
                connection,
                execution_id,
                place,
                category=found.category,
                exception_type=found.exception_type,
                message=found.message,
                action=action,
                attempt=place.try_number,
                model=model,
                node=node,
                context={"chain": list(found.chain)},
            )
            return [] if silent else [NewEvent("error", payload)]

        self._recorder.put(write)

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: uuid.UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember which node calls the model."""
        known = metadata or {}
        name = known.get("ls_model_name")
        model = f"{known.get('ls_provider', 'unknown')}:{name}" if name else self._agent.model
        if self._agent.model is None:
            self._agent.model = model
        self._calls[run_id] = (_task_key(known), model)

    async def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Count what the call used."""
        key, model = self._calls.pop(run_id, ("", self._agent.model))
        span = self._nodes.get(key)
        for generation in (item for batch in response.generations for item in batch):
            if not isinstance(generation, ChatGeneration) or not isinstance(generation.message, AIMessage):
                continue
            used = generation.message.usage_metadata
            given, answered = (used["input_tokens"], used["output_tokens"]) if used else (0, 0)
            cached = used.get("input_token_details", {}) if used else {}
            cost = cost_usd(
                model or "",
                given,
                answered,
                cache_read_tokens=cached.get("cache_read", 0) or 0,
                cache_write_tokens=cached.get("cache_creation", 0) or 0,
            )
            if used is None and cost != 0:
                cost = None  # without a count there is no price
            for usage in (self._agent.usage, span.usage if span is not None else self._loose):
                usage.add(given, answered, cost)
            if span is not None:
                span.model = model

    async def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Forget the call; the node's failure is recorded with the node."""
        self._calls.pop(run_id, None)

    def _start(self, span: _Span, given: Any) -> None:
        span.given = given
        if not self._brief:
            self._put(span, given, None)

    def _finish(self, span: _Span, output: Any) -> None:
        span.finished_at = datetime.now(UTC)
        self._put(span, span.given if self._brief else None, output)
        span.given = None

    def _put(self, span: _Span, given: Any, output: Any) -> None:
        # The row as it is now; redacting its input and output can wait until it is written.
        values = span.values()
        place = span.place
        event = None if self._brief else span.event()
        self._recorder.put(TraceRow(lambda: traces.row(place, **values, input=given, output=output), event))

    def _add_to_run(self, usage: Usage) -> None:
        if usage.calls:
            self._recorder.put(RunUsage(usage.input_tokens, usage.output_tokens, usage.cost))

    def _flush_tokens(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tokens, self._tokens = self._tokens, {}
        new = [
            NewEvent(
                "token",
                {
                    "task_id": self._place.task_id,
                    "map_index": self._place.map_index,
                    "try_number": self._place.try_number,
                    "agent": traces.label(self._place.agent, self._place.item),
                    "node": node,
                    "text": "".join(pieces),
                },
            )
            for node, pieces in tokens.items()
        ]
        if new:
            self._recorder.put(lambda _connection, _execution_id: new)


def node_path(namespace: Sequence[str], name: str) -> str:
    """A node's name, behind those of the nodes whose subgraphs it is in."""
    return "/".join([*(part.partition(":")[0] for part in namespace), name])


def _task_key(metadata: Mapping[str, Any]) -> str:
    """LangGraph's id of the node execution in which a callback fired."""
    return str(metadata.get("langgraph_checkpoint_ns", "")).rpartition("|")[2].rpartition(":")[2]
