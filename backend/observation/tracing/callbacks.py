"""Makes spans of model calls, tools and retrievers from LangChain's callbacks, also in users' own unchanged graphs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import LLMResult

from backend.core.workflow_error_handler import FailedAttempt
from backend.models.attempts import ATTEMPT_KEY, CALL_KEY
from backend.models.usage import CallUsage, answers, model_named
from backend.observation.tracing.agent import AgentTrace, harmless
from backend.observation.tracing.redaction import Known, message_json

_PARAMETERS = (
    "temperature", "max_tokens", "max_completion_tokens", "max_output_tokens", "top_p", "top_k", "seed", "n",
    "frequency_penalty", "presence_penalty", "reasoning_effort", "tool_choice", "num_predict",
)  # fmt: skip


@dataclass(slots=True)
class _Call:
    """A running model call, or one that waits for the decision about its error."""

    span: Any
    model: str | None
    call: str | None
    attempt: int
    error: BaseException | None = None
    ended_at: int = 0
    answering: bool = False


class TraceCalls(BaseCallbackHandler):
    """The handler of one agent. An attempt of a built-in agent's call ends once the decision about it is known."""

    raise_error = False
    run_inline = True

    def __init__(self, agent: AgentTrace) -> None:
        self._agent = agent
        self._parents: dict[UUID, UUID | None] = {}  # of running LangChain runs: which run was started by which
        self._tools: dict[UUID, Any] = {}
        self._calls: dict[UUID, _Call] = {}
        self._undecided: dict[tuple[str, int], _Call] = {}
        agent.at_end.append(self.finish)

    @harmless
    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        self._parents[run_id] = parent_run_id

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._parents.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._parents.pop(run_id, None)

    @harmless
    def on_chat_model_start(
        self, serialized: Any, messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        self._begin_call(run_id, [message_json(message) for batch in messages[:1] for message in batch], kwargs)

    @harmless
    def on_llm_start(self, serialized: Any, prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        self._begin_call(run_id, prompts, kwargs)

    def _begin_call(self, run_id: UUID, input_data: Any, context: Mapping[str, Any]) -> None:
        metadata = context.get("metadata") or {}
        model = model_named(metadata)
        call, attempt = metadata.get(CALL_KEY), int(metadata.get(ATTEMPT_KEY, 1))
        asked: Mapping[str, Any] = context.get("invocation_params") or {}
        details: dict[str, Any] = {"attempt": attempt} if call is not None else {}
        if tools := [_name_of(tool) for tool in asked.get("tools") or ()]:
            details["tools"] = tools
        span = self._agent.maker.child(
            self._around(context.get("parent_run_id"), metadata),
            (model or "model") + (f" (attempt {attempt})" if attempt > 1 else ""),
            "generation",
            input=self._agent.content.text(input_data),
            model=model,
            model_parameters={
                name: value for name in _PARAMETERS if isinstance(value := asked.get(name), str | int | float | bool)
            },
            metadata=Known(details),
        )
        self._calls[run_id] = _Call(span, model, call, attempt)

    @harmless
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._calls.get(run_id)
        if call is not None and not call.answering:
            call.answering = True
            call.span.update(completion_start_time=datetime.now(UTC))

    @harmless
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Add the answer, and close the span unless a decision follows."""
        call = self._calls.pop(run_id, None)
        if call is None:
            return
        found = list(answers(response))
        if found:
            self._count(call, CallUsage.of(found[0], call.model))
            output: Any = message_json(found[0])
        else:
            output = [generation.text for batch in response.generations for generation in batch]
        call.span.update(output=self._agent.content.text(output))
        self._end_call(call)

    def _count(self, call: _Call, used: CallUsage) -> None:
        if used.known:
            cached = {"input_cache_read": used.cache_read, "input_cache_creation": used.cache_write}
            call.span.update(
                usage_details={
                    "input": max(0, used.input_tokens - used.cache_read - used.cache_write),
                    "output": used.output_tokens,
                    "total": used.input_tokens + used.output_tokens,
                    **{name: count for name, count in cached.items() if count},
                }
            )
        if used.cost is not None:
            call.span.update(cost_details={"total": float(used.cost)})

    @harmless
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Add the error, and close the span unless a decision follows."""
        call = self._calls.pop(run_id, None)
        if call is not None:
            call.error = error
            self._end_call(call)

    def _end_call(self, call: _Call) -> None:
        call.ended_at = time.time_ns()
        if call.call is None:
            self._settle(call, call.error)
        else:
            self._undecided[call.call, call.attempt] = call

    def _settle(self, call: _Call, error: BaseException | None, failed: FailedAttempt | None = None) -> None:
        if error is not None:
            self._agent.fail(call.span, error, failed)
        call.span.end(end_time=call.ended_at)

    @harmless
    def attempt_over(self, number: int, model: str, failed: FailedAttempt | None, metadata: Mapping[str, Any]) -> None:
        """Close the span of an attempt, now that the decision about it is known. See `AttemptWatcher`."""
        key = str(metadata.get(CALL_KEY)), number
        call = self._undecided.pop(key, None) or self._unanswered(key)
        if call is not None:
            self._settle(call, failed.error if failed is not None else None, failed)
        elif failed is not None:  # refused before the model was called, for example by the rate limiter
            span = self._agent.maker.child(self._around(None, metadata), f"{model} (not called)", "span")
            self._agent.fail(span, failed.error, failed)
            span.end()

    def _unanswered(self, key: tuple[str, int]) -> _Call | None:
        """A call whose end LangChain has not reported, because a budget refused it."""
        for run_id, call in self._calls.items():
            if (call.call, call.attempt) == key:
                call.ended_at = time.time_ns()
                return self._calls.pop(run_id)
        return None

    @harmless
    def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **kwargs: Any) -> None:
        self._begin_tool("tool", run_id, serialized, kwargs.get("inputs") or input_str, kwargs)

    @harmless
    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **kwargs: Any) -> None:
        self._begin_tool("retriever", run_id, serialized, query, kwargs)

    def _begin_tool(
        self, kind: str, run_id: UUID, serialized: Any, input_data: Any, context: Mapping[str, Any]
    ) -> None:
        name = context.get("name") or (serialized or {}).get("name") or kind
        parent = context.get("parent_run_id")
        around = self._around(parent, context.get("metadata") or {})
        self._tools[run_id] = self._agent.maker.child(around, name, kind, input=self._agent.content.text(input_data))
        self._parents[run_id] = parent

    @harmless
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        failed = isinstance(output, ToolMessage) and output.status == "error"
        self._end_tool(run_id, output.content if isinstance(output, ToolMessage) else output, failed=failed)

    @harmless
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        self._end_tool(run_id, [getattr(document, "page_content", document) for document in documents])

    def _end_tool(self, run_id: UUID, output: Any, *, failed: bool = False) -> None:
        if (span := self._pop_tool(run_id)) is not None:
            span.update(output=self._agent.content.text(output), level="ERROR" if failed else None)
            span.end()

    @harmless
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if (span := self._pop_tool(run_id)) is not None:
            self._agent.fail(span, error)
            span.end()

    def _pop_tool(self, run_id: UUID) -> Any:
        self._parents.pop(run_id, None)
        return self._tools.pop(run_id, None)

    on_retriever_error = on_tool_error

    @harmless
    def finish(self) -> None:
        """Close all open spans as interrupted, because the agent has ended."""
        for call in [*self._undecided.values()]:
            self._settle(call, call.error)
        for span in [*(call.span for call in self._calls.values()), *self._tools.values()]:
            span.update(level="WARNING", status_message="broken off")
            span.end()
        for kept in (self._undecided, self._calls, self._tools, self._parents):
            kept.clear()

    def _around(self, run: UUID | None, metadata: Mapping[str, Any]) -> Any:
        """The span in which a call is made: that of a tool, a node or the agent."""
        depth = 0
        while run is not None and depth <= len(self._parents):
            if run in self._tools:
                return self._tools[run]
            run, depth = self._parents.get(run), depth + 1
        return self._agent.parent_of_call(str(metadata.get("langgraph_checkpoint_ns", "")))


def _name_of(tool: Any) -> str:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    return str(function.get("name") or function.get("type") or "tool")
