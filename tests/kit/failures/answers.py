"""Answers as models and servers give them, and what each is: complete, incomplete, or an error of another category."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.workflow_error_handler import Category
from tests.kit.failures.case import Speaks
from tests.kit.openai.behaviour import Json

Next = Literal["more_tokens", "again", "no_tools", "fallback", "retry", "fail"]
"""What follows the answer: another attempt with a higher limit, the same once more, with a remark, or none of these."""

TEXT = "The ship went north."
HALF = "The ship went"
USAGE = {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26}


@dataclass(frozen=True)
class Answer:
    """An answer, the category that it has (None if it is complete), what follows it, and words of its error's message.

    `message` is the assistant's message, `reason` why it ended. `whole` and `stream` replace the body that these make.
    """

    name: str
    message: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = "stop"
    category: Category | None = "invalid_output"
    follows: Next = "again"
    words: str = ""
    speaks: Speaks = "openai"
    body: Any = None
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    structured: bool = False
    streamed: tuple[bool, ...] = (False, True)

    def __str__(self) -> str:
        return self.name

    def script(self, *, stream: bool) -> dict[str, Any]:
        """The behaviour of the fake server that gives this answer."""
        if self.body is not None:
            return {"body": self.body}
        if not stream:
            choice = {"index": 0, "message": {"role": "assistant", **self.message}, "finish_reason": self.reason}
            return {"body": {**_base("chat.completion"), "choices": [choice], "usage": self.usage}}
        return {"body": sse(*self._chunks()), "headers": {"content-type": "text/event-stream"}}

    def _chunks(self) -> list[Json]:
        base = _base("chat.completion.chunk")
        deltas: list[Json] = [{"role": "assistant"}]
        for name, value in self.message.items():
            if isinstance(value, str) and len(value) > 1:
                deltas += [{name: value[:2]}, {name: value[2:]}]
            elif name == "tool_calls" and value:
                deltas += [{name: [{"index": index, **call}]} for index, call in enumerate(value)]
            else:
                deltas.append({name: value})
        chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": self.reason}]})
        return [*chunks, {**base, "choices": [], "usage": self.usage}] if self.usage else chunks


def _base(kind: str) -> Json:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "gpt-4.1-mini"}


def sse(*events: Any) -> str:
    """A stream of events."""
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def call(arguments: str, name: str = "Ships") -> Json:
    """A tool call."""
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def claude(*content: Json, reason: str | None = "end_turn") -> Json:
    """Anthropic's body."""
    usage = {"input_tokens": 20, "output_tokens": 6}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5", "content": list(content),
            "stop_reason": reason, "stop_sequence": None, "usage": usage}  # fmt: skip


def ollama(content: str, reason: str | None, **message: Any) -> Json:
    """Ollama's body, which is the last line of a stream as well."""
    return {"model": "llama3", "created_at": "2026-11-22T10:00:00Z", "done": True, "done_reason": reason,
            "message": {"role": "assistant", "content": content, **message},
            "prompt_eval_count": 20, "eval_count": 6}  # fmt: skip


def text(value: str) -> Json:
    return {"type": "text", "text": value}


CUT = "cut off by the token limit"
STOPPED = "the answer was stopped"
EMPTY = "the answer is empty"
THOUGHT = "has only thought"
CALLED = "which it wasn't offered"

ANSWERS = [
    # Complete
    Answer("complete", {"content": TEXT}, category=None),
    Answer("complete: a word", {"content": "A"}, category=None),
    Answer("complete: a null refusal", {"content": TEXT, "refusal": None}, category=None),
    Answer("complete: an empty refusal", {"content": TEXT, "refusal": ""}, category=None),
    Answer("complete: no tool calls", {"content": TEXT, "tool_calls": []}, category=None),
    Answer("complete: after reasoning", {"reasoning_content": "Hm. North.", "content": TEXT}, category=None),
    Answer("complete: ended by its eos", {"content": TEXT}, "eos", category=None),
    Answer("complete: ended by a stop sequence", {"content": TEXT}, "stop_sequence", category=None),
    Answer("complete: in capitals", {"content": TEXT}, "STOP", category=None),
    Answer("complete: no reason but usage", {"content": TEXT}, None, category=None),
    # The token limit
    Answer("length", {"content": HALF}, "length", "invalid_output", "more_tokens", f"{CUT} (length), after 13 char"),
    Answer("length: max_tokens", {"content": HALF}, "max_tokens", "invalid_output", "more_tokens", CUT),
    Answer("length: MAX_TOKENS", {"content": HALF}, "MAX_TOKENS", "invalid_output", "more_tokens", CUT),
    Answer("length: max_output_tokens", {"content": HALF}, "max_output_tokens", "invalid_output", "more_tokens", CUT),
    Answer("length: Mistral", {"content": HALF}, "model_length", "invalid_output", "more_tokens", CUT),
    Answer("length: nothing said", {"content": ""}, "length", "invalid_output", "more_tokens", "it has no content"),
    Answer("length: null", {"content": None}, "length", "invalid_output", "more_tokens", "it has no content"),
    Answer(
        "length: only reasoning", {"reasoning_content": "Hm. Is it", "content": None}, "length", "invalid_output",
        "more_tokens", "it has no content",
    ),
    Answer(
        "length: without usage", {"content": HALF}, "length", "invalid_output", "more_tokens", CUT, usage=None,
    ),
    # Stopped for another reason
    Answer("stopped: error", {"content": HALF}, "error", "invalid_output", "again", f"{STOPPED} (error) after 13"),
    Answer("stopped: error, nothing said", {"content": ""}, "error", "invalid_output", "again", STOPPED),
    Answer("stopped: abort", {"content": HALF}, "abort", "invalid_output", "again", STOPPED),
    Answer("stopped: cancelled", {"content": HALF}, "cancelled", "invalid_output", "again", STOPPED),
    Answer("stopped: DeepSeek", {"content": HALF}, "insufficient_system_resource", "invalid_output", "again", STOPPED),
    Answer("stopped: Google", {"content": ""}, "MALFORMED_FUNCTION_CALL", "invalid_output", "again", STOPPED),
    Answer("stopped: recitation", {"content": HALF}, "RECITATION", "invalid_output", "again", STOPPED),
    Answer("stopped: other", {"content": HALF}, "OTHER", "invalid_output", "again", STOPPED),
    # Refused
    Answer("refusal", {"content": None, "refusal": "I can't."}, "stop", "invalid_output", "fallback", "I can't."),
    Answer("refusal beside text", {"content": "Well.", "refusal": "No!"}, "stop", "invalid_output", "fallback", "No!"),
    Answer("filtered", {"content": HALF}, "content_filter", "content_filter", "fail", "content filter"),
    Answer("filtered: Google", {"content": ""}, "SAFETY", "content_filter", "fail", "content filter"),
    # Nothing said
    Answer("empty", {"content": ""}, words=EMPTY),
    Answer("null", {"content": None}, words=EMPTY),
    Answer("no content at all", {}, words=EMPTY),
    Answer("blank", {"content": " \n\t "}, words=EMPTY),
    Answer("blank: no-break space", {"content": "\u00a0\u2003"}, words=EMPTY),
    Answer("empty: ended with a word", {"content": ""}, "eos", words="'eos'"),
    Answer("empty: no reason but usage", {"content": ""}, None, words=EMPTY),
    Answer("only reasoning", {"reasoning_content": "Hm. North.", "content": None}, words=THOUGHT, streamed=(True,)),
    Answer("only reasoning: other name", {"reasoning": "Hm. North.", "content": ""}, words=THOUGHT, streamed=(True,)),
    Answer(
        "only reasoning: by its usage",
        {"content": ""},
        words=THOUGHT,
        usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 6}},
    ),
    # Tools that were not offered
    Answer("a tool call", {"content": None, "tool_calls": [call("{}", "look")]}, "tool_calls", follows="no_tools",
           words="the tool 'look'"),
    Answer("a tool call: ended as usual", {"content": None, "tool_calls": [call("{}")]}, follows="no_tools",
           words=CALLED),
    Answer("a tool call after text", {"content": "Let me look.", "tool_calls": [call("{}")]}, "tool_calls",
           follows="no_tools", words=CALLED),
    Answer("a tool call: broken", {"content": None, "tool_calls": [call("{q=")]}, "tool_calls", follows="no_tools",
           words=CALLED),
    Answer("a tool call: the old form", {"content": None, "function_call": {"name": "look", "arguments": "{}"}},
           "function_call", follows="no_tools", words="the tool 'look'"),
    # Broken off
    Answer("no end", {"content": HALF}, None, "server", "retry", "without a finish reason", usage=None),
    Answer("no end, nothing said", {"content": ""}, None, "server", "retry", "without a finish reason", usage=None),
    # Structured
    Answer("structured: complete", {"content": '{"ships": 2}'}, category=None, structured=True),
    Answer("structured: a tool call", {"content": None, "tool_calls": [call('{"ships": 2}')]}, "tool_calls",
           category=None, structured=True),
    Answer("structured: cut", {"content": '{"ships": 2, "na'}, "length", follows="more_tokens", words=CUT,
           structured=True),
    Answer("structured: cut though whole", {"content": '{"ships": 2}'}, "length", follows="more_tokens", words=CUT,
           structured=True),
    Answer("structured: a cut tool call", {"content": None, "tool_calls": [call('{"ships": 2, "na')]}, "length",
           follows="more_tokens", words="cut off", structured=True),
    Answer("structured: a cut tool call that ended as usual",
           {"content": None, "tool_calls": [call('{"ships": 2, "na')]}, "tool_calls",
           words="the arguments of the tool call 'Ships' are cut off", structured=True, streamed=(True,)),
    Answer("structured: cut in a number", {"content": None, "tool_calls": [call('{"ships": 2')]}, "stop",
           words="are cut off", structured=True, streamed=(True,)),
    Answer("structured: refusal", {"content": None, "refusal": "I can't."}, follows="fallback", words="I can't.",
           structured=True),
    Answer("structured: empty", {"content": ""}, words=EMPTY, structured=True),
    Answer("structured: stopped", {"content": '{"ships": 2'}, "error", words=STOPPED, structured=True),
    # Anthropic
    Answer("Anthropic: complete", body=claude(text(TEXT)), category=None, speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: length", body=claude(text(HALF), reason="max_tokens"), follows="more_tokens", words=CUT,
           speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: window", body=claude(text(HALF), reason="model_context_window_exceeded"),
           follows="more_tokens", words=CUT, speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: paused", body=claude(text(HALF), reason="pause_turn"), words=STOPPED, speaks="anthropic",
           streamed=(False,)),
    Answer("Anthropic: refusal", body=claude(text(HALF), reason="refusal"), category="content_filter",
           follows="fail", words="content filter", speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: nothing said", body=claude(), words=EMPTY, speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: only thought", body=claude({"type": "thinking", "thinking": "Hm.", "signature": "x"}),
           words=THOUGHT, speaks="anthropic", streamed=(False,)),
    Answer("Anthropic: a tool call", reason="tool_use", follows="no_tools", words=CALLED, speaks="anthropic",
           body=claude({"type": "tool_use", "id": "t", "name": "look", "input": {}}, reason="tool_use"),
           streamed=(False,)),
    # Ollama, which always streams
    Answer("Ollama: complete", body=ollama(TEXT, "stop"), category=None, speaks="ollama", streamed=(True,)),
    Answer("Ollama: length", body=ollama(HALF, "length"), follows="more_tokens", words=CUT, speaks="ollama",
           streamed=(True,)),
    Answer("Ollama: nothing said", body=ollama("", "stop"), words=EMPTY, speaks="ollama", streamed=(True,)),
]  # fmt: skip
