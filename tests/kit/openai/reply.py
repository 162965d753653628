"""The fake model's reply, which depends on the request alone unless a behaviour defines it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.kit.documents.json_example import example
from tests.kit.openai.behaviour import Behaviour, FinishReason, ToolCall, Usage, UsageIn
from tests.kit.openai.request import TOKEN_CHARACTERS, ModelRequest, tokens

REPLY_LIMIT = 200  # characters of the user's message that the default reply repeats


@dataclass(frozen=True)
class Reply:
    number: int
    """The request's number on this server; ids are made from it."""
    text: str
    refusal: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    usage_in: UsageIn = "end"
    raw_usage: Any = None
    reasoning: str | None = None


def in_tokens(text: str) -> list[str]:
    """The text as a stream sends it, token by token."""
    return [text[i : i + TOKEN_CHARACTERS] for i in range(0, len(text), TOKEN_CHARACTERS)]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def arguments_text(call: ToolCall) -> str:
    return call.arguments if isinstance(call.arguments, str) else compact(call.arguments)


def default_text(request: ModelRequest) -> str:
    """`You said: <the last user message>` and the number, types and sizes of the images; JSON on request."""
    if request.schema is not None:
        return compact(example(request.schema))
    said = request.last_user
    text = f"You said: {said[:REPLY_LIMIT]}{'…' if len(said) > REPLY_LIMIT else ''}"
    if request.images:
        count = len(request.images)
        shown = ", ".join(str(image) for image in request.images)
        text += f" [{count} image{'s' if count > 1 else ''}: {shown}]"
    return compact({"reply": text}) if request.json_mode else text


def reply_to(request: ModelRequest, behaviour: Behaviour, number: int) -> Reply:
    calls = behaviour.tool_calls
    text = behaviour.content if isinstance(behaviour.content, str) else ""
    if isinstance(behaviour.content, dict):
        text = compact(behaviour.content)
    elif behaviour.content is None and behaviour.refusal is None and not calls:
        if request.forced_tool is not None:
            name = request.forced_tool
            calls = (ToolCall(name=name, arguments=example(request.tools[name]) or {}),)
        else:
            text = default_text(request)
    calls = tuple(
        call if call.id else call.model_copy(update={"id": f"call_{number}_{i}"}) for i, call in enumerate(calls)
    )

    finish: FinishReason = "tool_calls" if calls else "stop"
    if request.max_tokens is not None and tokens(text) > request.max_tokens:
        text, finish = text[: request.max_tokens * TOKEN_CHARACTERS], "length"
    said = tokens(text) + tokens(behaviour.refusal or "")
    said += sum(tokens(call.name) + tokens(arguments_text(call)) for call in calls)
    return Reply(
        number=number,
        text=text,
        refusal=behaviour.refusal,
        tool_calls=calls,
        finish_reason=behaviour.finish_reason or finish,
        usage=behaviour.usage or Usage(input_tokens=request.input_tokens, output_tokens=said * request.n),
        usage_in=behaviour.usage_in,
        raw_usage=behaviour.raw_usage,
        reasoning=behaviour.reasoning,
    )
