"""Observes the run of one agent's graph, and records its nodes, tokens, usage, cost and outcome.

The runner reports what LangGraph's stream says (`node_started`, `node_finished`, `token`), and the model call reports
its attempts. Model usage arrives through LangChain's callbacks, which every model call passes, also in users' own
graphs. The observer combines them into rows of `agent_traces` (one for the agent, one for each execution of a node),
rows of `workflow_errors`, and events of the run's timeline. It hands them to the recorder, so nothing here waits or
fails.
"""

import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult

from backend.core.events import NewEvent
from backend.core.jsonable import dumps
from backend.core.redaction import hide, redact
from backend.core.workflow_error_handler import Action, Classified, FailedAttempt, SwitchModel
from backend.db.runs import traces
from backend.db.runs.run_payload import EXCERPT_CHARACTERS
from backend.db.runs.traces import Place
from backend.models.attempts import CALL_KEY
from backend.models.completeness import was_stopped
from backend.models.usage import CallUsage, Usage, answers, model_named
from backend.observation.recording.errors import ErrorRecords
from backend.observation.recording.recorder import QUEUE_LIMIT, Recorder
from backend.observation.recording.records import Events, RunUsage, TraceRow
from backend.observation.recording.tokens import TokenStream, task_key
from backend.observation.tracing.agent import AgentTrace

CUSTOM_BYTES = 32_768
"""JSON bytes of what a graph writes to its stream writer, beyond which the event has an excerpt."""

UNWRITTEN_LIMIT = 1_000
"""Records that a graph may be ahead of the database. Each may hold a state of the graph in memory."""


@dataclass(slots=True)
class _Span:
    """A row of `agent_traces` that isn't complete yet."""

    node: str | None
    model: str | None
    notice: str | None
    trace_id: str
    trace_url: str | None = None
    checkpoint_task: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "running"
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    finished_at: datetime | None = None
    latency_ms: float | None = None
    usage: Usage = field(default_factory=Usage)
    calls: list[str] = field(default_factory=list)
    input_data: Any = None
    attempt: int = 1
    retries: int = 0
    fallbacks: int = 0

    def close(self, state: str) -> None:
        self.state = state
        self.latency_ms = round((time.monotonic() - self.began) * 1000, 3)

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
            "attempt": self.attempt,
            "retries": self.retries,
            "fallbacks": self.fallbacks,
            "notice": self.notice,
            "trace_id": self.trace_id,
            "trace_url": self.trace_url,
            "checkpoint_task": self.checkpoint_task,
        }


class AgentObserver(AsyncCallbackHandler):
    """The observer of one agent in one try, and the LangChain callback handler that counts what its models use."""

    raise_error = False
    run_inline = True  # in order, on the graph's own loop

    def __init__(
        self,
        recorder: Recorder,
        place: Place,
        *,
        model: str | None,
        trace_id: str,
        trace_url: str | None = None,
        trace: AgentTrace | None = None,
        brief: bool = False,
    ) -> None:
        """`trace` receives the same reports, where traces are sent. A `brief` observer, for one of very many items,
        writes each row only once, when it is complete, and reports nothing to the stream."""
        self._recorder = recorder
        self._brief = brief
        self.place = place
        self.trace_id = trace_id
        self.trace_url, self.trace = trace_url, trace
        self._agent = _Span(None, model, None, trace_id, trace_url)
        self._before = Usage()
        self.failed_node: str | None = None
        """The node that failed last."""
        self._loose = Usage()  # of model calls outside of nodes
        self._loose_calls: list[str] = []
        self._nodes: dict[str, _Span] = {}
        # Of running calls: the node, the model, and whether it is a user's own one, whose answers nobody else checks.
        self._calls: dict[uuid.UUID, tuple[str, str | None, bool]] = {}
        self._tokens = TokenStream(lambda new: recorder.put(Events(new)), place)
        self._errors = ErrorRecords(recorder, place)
        self._ended: dict[str, str] = {}  # executions that failed since the graph was last started, and their nodes
        self._failures: dict[str, list[str]] = {}  # ids of the errors after which a node was restarted
        self._restarts: Counter[str] = Counter()  # how often a node was restarted since it last succeeded

    def used_before(self, used: Usage) -> None:
        """What the agent used in earlier tries of the task."""
        self._before = used
        self._errors.follows_another()

    @property
    def usage(self) -> Usage:
        """What the agent used in this try."""
        return self._agent.usage

    @property
    def total_usage(self) -> Usage:
        """What the agent used in all tries of the task."""
        return Usage.sum([self._before, self._agent.usage])

    @property
    def model(self) -> str | None:
        """The model that the agent uses; of a graph that uses several, the first."""
        return self._agent.model

    @property
    def finished(self) -> bool:
        """Whether the agent has ended, in whatever state."""
        return self._agent.state != "running"

    @property
    def notice(self) -> str | None:
        """What the user should know about the choice of the model and the result."""
        return self._agent.notice

    def uses(self, model: str | None, notice: str | None) -> None:
        """Report the chosen model, before the agent begins."""
        self._agent.model, self._agent.notice = model, notice

    async def room(self) -> None:
        """Wait while the database is far behind with what was reported, so that nothing of it has to be dropped."""
        await self._recorder.room(QUEUE_LIMIT // 2 if self._brief else UNWRITTEN_LIMIT)

    def begin(self, input_data: Any) -> None:
        if self.trace is not None:
            self.trace.begin(input_data)
        self._start(self._agent, input_data)

    def node_started(
        self, key: str, name: str, input_data: Any, parent: str | None = None, *, kept: bool = False
    ) -> None:
        """Report that a node starts. `key` and `parent` are LangGraph's ids of it and of the node around it; `kept`
        says whether its checkpoints will have what it returns."""
        task = key if kept else None
        span = _Span(name, None, None, self.trace_id, checkpoint_task=task, attempt=1 + self._restarts[name])
        if self.trace is not None:
            self.trace.node_started(key, name, input_data, parent, span.attempt)
        self._nodes[key] = span
        self._start(span, input_data)

    def node_finished(self, key: str, error: Any, output: Any) -> None:
        """Report that a node's execution has ended."""
        if self.trace is not None:
            self.trace.node_finished(key, error, output)
        span = self._nodes.pop(key, None)
        if span is not None:
            self._tokens.flush(key)
            span.close("failed" if error else "success")
            node = span.node or ""
            if error:
                self.failed_node = self._ended[key] = node
            else:
                self._restarts.pop(node, None)
                if failures := self._failures.pop(node, None):
                    self._errors.recovered(failures)
            self._finish(span, output)
            self._add_to_run(span.usage, span.calls)

    def token(self, metadata: Mapping[str, Any], text: str) -> None:
        self._tokens.add(metadata, text)

    def custom(self, node: str | None, data: Any) -> None:
        """Report what the graph has written to its stream writer. `node` is None where several may have."""
        shown = hide(redact(data), self._recorder.hidden)
        text = dumps(shown)
        size = len(text.encode())
        if size > CUSTOM_BYTES:
            shown = {"truncated": True, "bytes": size, "excerpt": text[:EXCERPT_CHARACTERS]}
        place = self.place
        payload = {"task_id": place.task_id, "map_index": place.map_index, "try_number": place.try_number}
        self._recorder.put(Events([NewEvent("custom", {**payload, "agent": place.agent, "node": node, "data": shown})]))

    def finish(self, state: str, output: Any) -> None:
        """Report that the agent has ended. Nodes that are still open end in the same state."""
        self._close_nodes(state)
        if state == "success":
            self._errors.succeeded()
        self._agent.close(state)
        if self.trace is not None:
            self.trace.finish(state, output, model=self.model, notice=self.notice, usage=self.usage)
        self._finish(self._agent, output)
        self._add_to_run(self._loose, self._loose_calls)

    def failed(
        self, found: Classified, action: Action, *, attempt: FailedAttempt | None = None, silent: bool = False
    ) -> None:
        """Record the error that ended the agent, and its attempt. A `silent` one isn't reported to the stream."""
        if self.trace is not None:
            self.trace.failed(found, action, attempt)
        node = self.failed_node or next((span.node for span in self._nodes.values()), None)
        model = (attempt.model if attempt is not None else None) or self._agent.model
        self._errors.write(found, action, model=model, node=node, attempt=attempt, silent=silent)

    def restarted(self, failed: FailedAttempt) -> None:
        """Report that a node failed, and that the graph resumes from its last checkpoint."""
        self._errors.of_attempt(failed, self.failed_node)
        self._count(self._agent, failed)
        self._tokens.supersede_nodes([*self._ended, *self._nodes])
        for node in self._ended.values():
            self._failures.setdefault(node, []).append(failed.id)
        self._restarts.update({*self._ended.values(), *(span.node or "" for span in self._nodes.values())})
        self._close_nodes("cancelled")
        self._ended.clear()
        self.failed_node = None

    def attempts_at(self, node: str | None) -> int:
        """The number of the current attempt at a node."""
        return 1 + self._restarts[node or ""]

    def attempt_failed(self, failed: FailedAttempt, metadata: Mapping[str, Any]) -> None:
        """Report that an attempt at a model call failed, and that another one follows."""
        span = self._nodes.get(task_key(metadata))
        self._tokens.supersede_call(metadata)
        self._errors.of_attempt(failed, span.node if span is not None else None)
        self._count(self._agent, failed)
        if span is not None:
            self._count(span, failed)

    def call_recovered(self, failed: Sequence[FailedAttempt], metadata: Mapping[str, Any]) -> None:
        """Report that a model call succeeded after these attempts."""
        self._errors.recovered([one.id for one in failed])

    def took_over(self, model: str, notice: str) -> None:
        """Report that another model than the chosen one has answered."""
        self.noticed(notice)
        self._agent.model = model

    def noticed(self, notice: str) -> None:
        """Report something about an answer or the result that the user should know."""
        known = self._agent.notice
        if known is None or notice not in known:
            self._agent.notice = f"{known}; {notice}" if known else notice

    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: uuid.UUID, **kwargs: Any
    ) -> None:
        known = kwargs.get("metadata") or {}
        model = model_named(known) or self._agent.model
        if self._agent.model is None:
            self._agent.model = model
        self._calls[run_id] = (task_key(known), model, CALL_KEY not in known)

    async def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Count what the call used."""
        key, model, own = self._calls.pop(run_id, ("", self._agent.model, False))
        span = self._nodes.get(key)
        for message in answers(response):
            used = CallUsage.of(message, model)
            if used.notice is not None:
                self.noticed(used.notice)
            if own and (reason := was_stopped(message)) is not None:
                self.noticed(f"an answer of {model or 'a model'} is incomplete: it was stopped ({reason})")
            for usage in (self._agent.usage, span.usage if span is not None else self._loose):
                usage.add(used.input_tokens, used.output_tokens, used.cost)
            if span is not None:
                span.model = model
        (span.calls if span is not None else self._loose_calls).append(str(run_id))

    async def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Forget the call; its failure is recorded with the node."""
        self._calls.pop(run_id, None)

    def _start(self, span: _Span, input_data: Any) -> None:
        span.input_data = input_data
        if not self._brief:
            self._put(span, input_data, None)

    def _finish(self, span: _Span, output: Any) -> None:
        span.finished_at = datetime.now(UTC)
        self._put(span, span.input_data if self._brief else None, output)
        span.input_data = None

    def _put(self, span: _Span, input_data: Any, output: Any) -> None:
        # The row as it is now. Redacting input and output can wait until it is written.
        place, values = self.place, span.values()
        event = None if self._brief else NewEvent("agent_update", traces.payload(traces.row(place, **values)))
        ended = span is self._agent and self.finished
        self._recorder.put(
            TraceRow(lambda: traces.row(place, **values, input=input_data, output=output), event, dispensable=not ended)
        )

    def _add_to_run(self, usage: Usage, calls: Sequence[str]) -> None:
        if usage.calls:
            self._recorder.put(RunUsage(usage.input_tokens, usage.output_tokens, usage.cost, tuple(calls)))

    def _count(self, span: _Span, failed: FailedAttempt) -> None:
        """Count a failed attempt that another one follows. An agent as a whole has one attempt."""
        span.attempt += span.node is not None
        if isinstance(failed.decision, SwitchModel):
            span.fallbacks += 1
        else:
            span.retries += 1
        if not self._brief:
            self._put(span, span.input_data, None)

    def _close_nodes(self, state: str) -> None:
        self._tokens.flush()
        for span in self._nodes.values():
            span.close(state)
            self._finish(span, None)
            self._add_to_run(span.usage, span.calls)
        self._nodes.clear()


def node_path(namespace: Sequence[str], name: str) -> str:
    """A node's name, after the names of the nodes whose subgraphs it belongs to."""
    return "/".join([*(part.partition(":")[0] for part in namespace), name])
