"""Tells whether a model's answer is complete.

Half an answer looks like a whole one, unless somebody looks at how it ended. An answer is incomplete if the model was
stopped (by its token limit, or by an error of its server), refused, said nothing, thought without answering, or called
a tool where none was offered. Each becomes an `IncompleteAnswerError` that says what is known, and what may help.

An answer that a content filter ended, or that broke off without any end, is an error of another category.
"""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from langchain_core.messages import AIMessage

from backend.core.errors.agent_errors import (
    AnswerBrokenOffError,
    AnswerFilteredError,
    AnswerRefusedError,
    IncompleteAnswerError,
)
from backend.models.usage import tokens_of

INCOMPLETE_KEY = "incomplete"
"""Key in a message's `additional_kwargs`: why the answer is incomplete, if it was accepted nevertheless."""
ARGUMENTS_KEY = "tool_arguments"
"""Key in a message's `additional_kwargs`: the arguments of its tool calls as text, by their position."""
REASONED_KEY = "reasoned"
"""Key in a message's `additional_kwargs`: whether the model has thought before it answered."""

EXCERPT = 500
"""How many characters of an incomplete answer are kept with its error."""

_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason", "finishReason")
_CUT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length", "max_length"}
    | {"token_limit", "stopped_limit", "model_context_window_exceeded", "context_length", "finish_reason_max_tokens"}
)
_STOPPED = re.compile(
    r"error|abort|cancel|fail|interrupt|timeout|timed_out|insufficient|malformed|unexpected|incomplete|recitation"
    r"|pause_turn|overloaded|exhausted|^other$|^unknown$"
)
# The metadata in which these providers say why an answer ended. Without any, a proxy has closed the stream too early.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "openai": ("finish_reason", "status"),
    "azure_openai": ("finish_reason", "status"),
    "anthropic": ("stop_reason",),
    "ollama": ("done_reason", "done"),
}
_FILTERED = frozenset(
    {"content_filter", "safety", "prohibited_content", "blocklist", "refusal", "spii", "image_safety"}
    | {"content_filtered", "guardrail_intervened", "error_toxic"}
)
_REPEATED = re.compile(r"(.+?)\1+")


def check_end(message: AIMessage, provider: str) -> None:
    """Raise for an answer that a content filter ended, or that broke off: `provider` always says how one ended."""
    said = message.response_metadata
    if end_of(message) in _FILTERED:
        raise AnswerFilteredError("the provider's content filter ended the answer")
    endings = _ENDINGS.get(provider)
    if endings is None or any(said.get(name) for name in endings):
        return
    # Usage is the last thing that these providers send, so an answer with usage is complete.
    if "finish_reason" not in endings or message.usage_metadata is None:
        raise AnswerBrokenOffError("the answer broke off: it ended without a finish reason")


def find_incompleteness(message: AIMessage, *, tools: bool) -> IncompleteAnswerError | None:
    """What is missing in an answer; None if it is complete. `tools` says whether the model may call tools."""
    if str(message.response_metadata.get("model_name", "")).startswith("local:"):
        return None
    reason = end_of(message)
    cut, text = reason in _CUT, message.text
    known = _known(message, reason)
    if refusal := _refusal(message):
        return AnswerRefusedError(f"the model refused to answer: {_excerpt(refusal)}", known=known)
    called = _called(message)
    if tools and (cut_call := _cut_call(message)):
        return IncompleteAnswerError(
            f"the arguments of the tool call {cut_call!r} are cut off{_because(reason)}",
            known=known,
            remedy="more_tokens" if cut else "again",
            acceptable=False,
        )
    if cut:
        missing = "it has no content" if not (text.strip() or called) else f"after {len(text)} characters"
        return IncompleteAnswerError(
            f"the answer was cut off by the token limit ({reason}), {missing}", known=known, remedy="more_tokens"
        )
    if reason and _STOPPED.search(reason):
        return IncompleteAnswerError(
            f"the answer was stopped ({reason}) after {len(text)} characters", known=known, remedy="again"
        )
    if called and not tools:
        return IncompleteAnswerError(
            f"the model called the tool {called[0]!r}, which it wasn't offered", known=known, remedy="no_tools"
        )
    if not text.strip() and not called:
        what = "the model has only thought, and answered nothing" if _reasoned(message) else "the answer is empty"
        return IncompleteAnswerError(f"{what}{_because(reason)}", known=known, remedy="again")
    return None


def end_of(message: AIMessage) -> str:
    """Why an answer ended, in the provider's own word and in lower case; "" if it doesn't say."""
    said = message.response_metadata
    for name in _REASONS:
        if isinstance(reason := said.get(name), str) and reason:
            # LangChain joins what a server repeats in each piece of a stream.
            repeated = _REPEATED.fullmatch(reason)
            return (repeated[1] if repeated else reason).lower()
    details = said.get("incomplete_details")
    if isinstance(details, Mapping) and isinstance(details.get("reason"), str):
        return str(details["reason"]).lower()
    status = said.get("status")
    return status.lower() if isinstance(status, str) and status not in ("completed", "success") else ""


def was_stopped(message: AIMessage) -> str | None:
    """The reason for which an answer ended early; None if it didn't. For answers to calls that others make."""
    reason = end_of(message)
    return reason if reason in _CUT or (reason and _STOPPED.search(reason)) else None


def _refusal(message: AIMessage) -> str:
    """The model's words for its refusal, "" if there are none: OpenAI's two APIs keep them in different places."""
    said = [message.additional_kwargs.get("refusal")]
    if isinstance(message.content, list):
        said += [part.get("refusal") for part in message.content if isinstance(part, Mapping)]
    return "".join(words for words in said if isinstance(words, str)).strip()


def _called(message: AIMessage) -> list[str]:
    """The names of the tools that an answer calls."""
    calls = [call.get("name") for call in (*message.tool_calls, *message.invalid_tool_calls)]
    function = message.additional_kwargs.get("function_call")
    if isinstance(function, Mapping):
        calls.append(function.get("name"))
    return [str(name or "?") for name in calls]


def _cut_call(message: AIMessage) -> str | None:
    """The tool call whose arguments LangChain has completed because they were cut off."""
    written = message.additional_kwargs.get(ARGUMENTS_KEY)
    if not isinstance(written, Mapping) or not message.tool_calls:
        return None
    for text in written.values():
        if isinstance(text, str) and text.strip() and not _is_json(text):
            return message.tool_calls[0]["name"]
    return None


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(text, strict=False)
        return True
    return False


def _reasoned(message: AIMessage) -> bool:
    if message.additional_kwargs.get(REASONED_KEY) or message.additional_kwargs.get("reasoning_content"):
        return True
    if isinstance(message.content, list) and any(
        isinstance(part, Mapping) and part.get("type") in ("thinking", "reasoning", "redacted_thinking")
        for part in message.content
    ):
        return True
    used = message.usage_metadata
    return used is not None and bool(used.get("output_token_details", {}).get("reasoning"))


def _known(message: AIMessage, reason: str) -> dict[str, Any]:
    """What an error's record keeps of an answer."""
    tokens = tokens_of(message)
    known = {
        "finish_reason": reason,
        "answer": _excerpt(message.text),
        "answer_chars": len(message.text),
        "output_tokens": tokens[1] if tokens is not None else None,
        "tool_calls": _called(message)[:10],
    }
    return {name: value for name, value in known.items() if value not in (None, "", [])}


def _because(reason: str) -> str:
    return f" (it ended with {reason!r})" if reason and reason not in ("stop", "end_turn") else ""


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
