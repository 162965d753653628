"""The spans of one agent: its own, those of its graph's nodes and, through `TraceCalls`, of its models and tools."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from langgraph.pregel import Pregel

from backend.core.workflow_error_handler import Classified, FailedAttempt, action_of, classify, wait_of
from backend.models.usage import Usage
from backend.observation.tracing.client import SpanMaker
from backend.observation.tracing.redaction import Known

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_logged: set[str] = set()


def harmless(method: Callable[P, T]) -> Callable[P, T | None]:
    """Log errors of tracing, once for each type, instead of raising them: tracing never fails an agent."""

    @wraps(method)
    def attempted(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            kind = f"{method.__qualname__}: {type(error).__name__}"
            if kind not in _logged:
                _logged.add(kind)
                log.warning("a part of the trace is missing (%s)", kind, exc_info=True)
            return None

    return attempted


class AgentTrace:
    """The spans of one run of an agent in one try. No method raises or waits."""

    def __init__(self, maker: SpanMaker, trace_id: str, parent: Any, name: str, metadata: Mapping[str, Any]) -> None:
        """`parent` is the span of the task, or None when the agent has a trace of its own."""
        self.maker = maker
        self.content = maker.client.content
        self.trace_id = trace_id
        self.traced_by_itself = False
        """Whether the graph has a handler of Langfuse's own, which makes the inner spans."""
        self._own = False
        self._parent = parent
        self._name = name
        self._metadata = Known(metadata)
        self._span: Any = None
        self._nodes: dict[str, Any] = {}
        self._ended: set[str] = set()
        self.at_end: list[Callable[[], object]] = []
        """Called before the agent's span ends."""

    @harmless
    def begin(self, input_data: Any) -> None:
        more = {"input": self.content.text(input_data), "metadata": self._metadata}
        if self._parent is None:
            self._span = self.maker.root(self.trace_id, self._name, "agent", **more)
        else:
            self._span = self.maker.child(self._parent, self._name, "agent", **more)

    @harmless
    def uses(self, graph: "Pregel[Any, Any, Any, Any]") -> None:
        """Report the user's graph. One that has a handler of Langfuse's own is not traced twice."""
        handlers: Any = (graph.config or {}).get("callbacks") or []
        handlers = getattr(handlers, "handlers", handlers)
        self._own = True
        self.traced_by_itself = any(type(handler).__module__.startswith("langfuse.") for handler in handlers)

    @contextmanager
    def current(self) -> Iterator[None]:
        """While this is open, what users' code traces with Langfuse becomes part of the agent."""
        with ExitStack() as stack:
            self._enter(stack)
            yield

    @harmless
    def _enter(self, stack: ExitStack) -> None:
        if self._span is not None and self._own:
            stack.enter_context(self.maker.current(self.trace_id, self._span))

    @harmless
    def node_started(self, key: str, name: str, input_data: Any, parent: str | None, attempt: int) -> None:
        """Report that a node starts. `key` and `parent` are LangGraph's ids of it and of the node around it."""
        if self.traced_by_itself or self._span is None:
            return
        metadata = Known({"node": name, **({"attempt": attempt} if attempt > 1 else {})})
        details = {"input": self.content.text(input_data), "metadata": metadata}
        if key in self._nodes:  # a call that it made was reported before
            self._nodes[key].update(**details)
        else:
            self._ended.discard(key)  # a node that is restarted keeps its id
            self._node(key, name.rpartition("/")[2], self._nodes.get(parent or "", self._span), **details)

    @harmless
    def node_finished(self, key: str, error: Any, output: Any) -> None:
        """Report that a node's execution has ended."""
        span = self._nodes.pop(key, None)
        self._ended.add(key)
        if span is None:
            return
        if error:
            self.fail(span, error)
        else:
            span.update(output=self.content.text(output))
        span.end()

    def parent_of_call(self, path: str) -> Any:
        """The span to which a call belongs. `path` is LangGraph's path of the node that made it."""
        around = self._span
        for part in path.split("|"):
            name, _, key = part.partition(":")
            if key and key not in self._ended:
                # LangGraph's stream reports the node as well, but maybe later than the call.
                around = self._node(key, name, around)
        return around

    @harmless
    def failed(self, found: Classified, action: str, attempt: FailedAttempt | None) -> None:
        if self._span is not None:
            self._mark(self._span, found, action, attempt)

    @harmless
    def finish(self, state: str, output: Any, *, model: str | None, notice: str | None, usage: Usage) -> None:
        """Report that the agent has ended. Nodes that are still open end in the same state."""
        for close in self.at_end:
            close()
        for span in self._nodes.values():
            span.update(level="WARNING", status_message=state)
            span.end()
        self._nodes.clear()
        if self._span is None:
            return
        metadata: dict[str, Any] = {"state": state, "model": model, "notice": notice}
        if usage.calls:
            metadata |= {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cost_usd": usage.cost_usd,
            }
        self._span.update(output=self.content.text(output), metadata=Known(metadata))
        if state not in ("success", "failed"):
            self._span.update(level="WARNING", status_message=notice or state)
        self._span.end()

    def fail(self, span: Any, error: Any, attempt: FailedAttempt | None = None) -> None:
        """Mark a span with the error that ended it, and with the decision about the error."""
        if not isinstance(error, BaseException):
            span.update(level="ERROR", status_message=self.content.message("internal", "error", str(error)))
            return
        action = action_of(attempt.decision) if attempt is not None else None
        self._mark(span, classify(error), action, attempt)

    def _mark(self, span: Any, found: Classified, action: str | None, attempt: FailedAttempt | None) -> None:
        retry_in = wait_of(attempt.decision) if attempt is not None else None
        details = Known(category=found.category, exception=found.exception_type, action=action, retry_in=retry_in)
        message = self.content.message(found.category, found.exception_type, found.message)
        span.update(level="ERROR", status_message=message, metadata=details)

    def _node(self, key: str, name: str, around: Any, **more: Any) -> Any:
        if key not in self._nodes:
            self._nodes[key] = self.maker.child(around, name, "chain", **more)
        return self._nodes[key]


def within(trace: AgentTrace | None) -> AbstractContextManager[None]:
    """The context in which an agent's graph runs."""
    return trace.current() if trace is not None else nullcontext()
