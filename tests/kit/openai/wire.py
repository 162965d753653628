"""A reply in the two formats of OpenAI's API, whole and as server-sent events.

https://platform.openai.com/docs/api-reference/chat/object, …/chat-streaming, …/responses/object and
…/responses-streaming
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tests.kit.openai import other_wire
from tests.kit.openai.behaviour import Api, Json
from tests.kit.openai.reply import Reply, arguments_text, compact, in_tokens
from tests.kit.openai.request import ModelRequest

DONE = b"data: [DONE]\n\n"


def body(request: ModelRequest, reply: Reply) -> Json:
    if request.api == "messages":
        return other_wire.message(request, reply)
    if request.api == "ollama":
        return other_wire.ollama_body(request, reply)
    return chat_completion(request, reply) if request.api == "chat" else response(request, reply)


def events(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    """Encoded server-sent events, or lines for Ollama; a chat ends with `[DONE]`."""
    if request.api == "messages":
        yield from other_wire.message_events(request, reply)
    elif request.api == "ollama":
        yield from other_wire.ollama_lines(request, reply)
    elif request.api == "chat":
        for chunk in _chat_chunks(request, reply):
            yield f"data: {compact(chunk)}\n\n".encode()
        yield DONE
    else:
        for number, event in enumerate(_response_events(request, reply)):
            yield _named(event, number)


def error_body(request_api: Api, error: Json, number: int) -> Json:
    """The body of a response with an error status."""
    if request_api == "messages":
        return other_wire.message_error(error, number)
    return {"error": error.get("message")} if request_api == "ollama" else {"error": error}


def error_event(request: ModelRequest, error: Json, position: int) -> bytes:
    if request.api == "messages":
        return other_wire.message_error_event(error)
    if request.api == "ollama":
        return f"{compact({'error': error['message']})}\n".encode()
    if request.api == "chat":
        return f"data: {compact({'error': error})}\n\n".encode()
    return _named({**error, "type": "error", "code": error["code"] or error["type"]}, position)


def _named(event: Json, number: int) -> bytes:
    return f"event: {event['type']}\ndata: {compact({**event, 'sequence_number': number})}\n\n".encode()


# Chat completions


def _chat_usage(reply: Reply) -> Any:
    usage = reply.usage
    if reply.raw_usage is not None:
        return reply.raw_usage
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


def chat_completion(request: ModelRequest, reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": reply.refusal}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_text(call)},
            }
            for call in reply.tool_calls
        ]
    choice = {"message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    return {
        "id": f"chatcmpl-{reply.number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": i, **choice} for i in range(request.n)],
        "usage": None if reply.usage_in == "never" else _chat_usage(reply),
        "service_tier": "default",
        "system_fingerprint": "fp_kit",
    }


def _chat_chunks(request: ModelRequest, reply: Reply) -> Iterator[Json]:
    """The chunks, with the usage where `usage_in` says."""
    chunks = list(_chunks(request, reply))
    if not request.include_usage:
        yield from chunks
        return
    usage, last = _chat_usage(reply), len(chunks) - 1
    for position, chunk in enumerate(chunks):
        match reply.usage_in:
            case "each":
                chunk["usage"] = usage
            case "growing":
                said = reply.usage.output_tokens * position // max(last, 1)
                chunk["usage"] = {**usage, "completion_tokens": said, "total_tokens": reply.usage.input_tokens + said}
            case "halves" if position == 0:
                chunk["usage"] = {"prompt_tokens": reply.usage.input_tokens, "completion_tokens": 0}
            case "halves" if position == last:
                chunk["usage"] = {"completion_tokens": reply.usage.output_tokens}
            case "last" if position == last:
                chunk["usage"] = usage
            case "middle" if position == last // 2:
                chunk["usage"] = usage
            case "choice" if position == last:
                chunk["choices"][0]["usage"] = usage
        yield chunk
    if reply.usage_in == "end":
        yield {**chunks[-1], "choices": [], "usage": usage}


def _chunks(request: ModelRequest, reply: Reply) -> Iterator[Json]:
    base: Json = {
        "id": f"chatcmpl-{reply.number}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": request.model,
        "service_tier": "default",
        "system_fingerprint": "fp_kit",
    }
    if request.include_usage:
        base["usage"] = None

    def chunk(delta: Json, finish_reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**base, "choices": [choice]}

    yield chunk({"role": "assistant", "content": None if reply.tool_calls else "", "refusal": None})
    for piece in in_tokens(reply.reasoning or ""):
        yield chunk({"reasoning_content": piece})
    for piece in in_tokens(reply.text):
        yield chunk({"content": piece})
    for piece in in_tokens(reply.refusal or ""):
        yield chunk({"refusal": piece})
    for index, call in enumerate(reply.tool_calls):
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
        for piece in in_tokens(arguments_text(call)):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, reply.finish_reason)


# Responses


def _output(reply: Reply) -> list[Json]:
    output: list[Json] = []
    if reply.text or reply.refusal is not None or not reply.tool_calls:
        part: Json = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        if reply.refusal is not None:
            part = {"type": "refusal", "refusal": reply.refusal}
        item_id = f"msg_{reply.number}"
        output.append({"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    output.extend(
        {
            "id": f"fc_{reply.number}_{i}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": arguments_text(call),
        }
        for i, call in enumerate(reply.tool_calls)
    )
    return output


def response(request: ModelRequest, reply: Reply) -> Json:
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reply.finish_reason)
    usage, params = reply.usage, request.params
    return {
        "id": f"resp_{reply.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if why else "completed",
        "error": None,
        "incomplete_details": {"reason": why} if why else None,
        "instructions": params.get("instructions"),
        "max_output_tokens": request.max_tokens,
        "metadata": params.get("metadata") or {},
        "model": request.model,
        "output": _output(reply),
        "parallel_tool_calls": params.get("parallel_tool_calls", True),
        "previous_response_id": params.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": params.get("store", True),
        "temperature": params.get("temperature", 1.0),
        "text": params.get("text") or {"format": {"type": "text"}},
        "tool_choice": params.get("tool_choice", "auto"),
        "tools": params.get("tools") or [],
        "top_p": params.get("top_p", 1.0),
        "truncation": params.get("truncation", "disabled"),
        "usage": {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
        "user": params.get("user"),
    }


def _response_events(request: ModelRequest, reply: Reply) -> Iterator[Json]:
    whole = response(request, reply)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(whole["output"]):
        yield from _item_events(index, item)
    yield {"type": f"response.{whole['status']}", "response": whole}


def _item_events(index: int, item: Json) -> Iterator[Json]:
    where: Json = {"item_id": item["id"], "output_index": index}
    begun = {**item, "status": "in_progress"}
    begun["content" if item["type"] == "message" else "arguments"] = [] if item["type"] == "message" else ""
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in in_tokens(item["arguments"]):
            yield {"type": f"{kind}.delta", **where, "delta": piece}
        yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": item["arguments"]}
    else:
        part = item["content"][0]
        key = "refusal" if part["type"] == "refusal" else "text"
        where["content_index"] = 0
        yield {"type": "response.content_part.added", **where, "part": {**part, key: ""}}
        kind = "response.refusal" if key == "refusal" else "response.output_text"
        for piece in in_tokens(part[key]):
            yield {"type": f"{kind}.delta", **where, "delta": piece, "logprobs": []}
        yield {"type": f"{kind}.done", **where, key: part[key], "logprobs": []}
        yield {"type": "response.content_part.done", **where, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}
