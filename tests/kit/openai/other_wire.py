"""A reply in the formats of Anthropic's Messages API and of Ollama's chat API, whole and streamed; without tool calls.

https://docs.anthropic.com/en/api/messages, …/messages-streaming and https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tests.kit.openai.behaviour import Json
from tests.kit.openai.reply import Reply, compact, in_tokens
from tests.kit.openai.request import ModelRequest

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}


def message(request: ModelRequest, reply: Reply) -> Json:
    return {
        "id": f"msg_{reply.number}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": _STOP_REASONS.get(reply.finish_reason, "end_turn"),
        "stop_sequence": None,
        "usage": {"input_tokens": reply.usage.input_tokens, "output_tokens": reply.usage.output_tokens},
    }


def message_events(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    whole = message(request, reply)
    yield _named({"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}})
    yield _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    for piece in in_tokens(reply.text):
        yield _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    yield _named({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": ended, "usage": {"output_tokens": reply.usage.output_tokens}})
    yield _named({"type": "message_stop"})


def message_error(error: Json, number: int) -> Json:
    return {"type": "error", "error": error, "request_id": f"req_{number}"}


def message_error_event(error: Json) -> bytes:
    return _named({"type": "error", "error": error})


def ollama_lines(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    for piece in in_tokens(reply.text):
        yield _line(request, piece, {"done": False})
    yield _line(request, "", _ollama_end(reply))


def ollama_body(request: ModelRequest, reply: Reply) -> Json:
    return {**_ollama(request, reply.text), **_ollama_end(reply)}


def _ollama_end(reply: Reply) -> Json:
    return {
        "done": True,
        "done_reason": "length" if reply.finish_reason == "length" else "stop",
        "prompt_eval_count": reply.usage.input_tokens,
        "eval_count": reply.usage.output_tokens,
    }


def _line(request: ModelRequest, text: str, more: Json) -> bytes:
    return f"{compact({**_ollama(request, text), **more})}\n".encode()


def _ollama(request: ModelRequest, text: str) -> Json:
    message = {"role": "assistant", "content": text}
    return {"model": request.model, "created_at": datetime.now(UTC).isoformat(), "message": message}


def _named(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: {compact(event)}\n\n".encode()
