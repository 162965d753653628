"""How the fake OpenAI server misbehaves on request: a `Behaviour` for each scripted response, and named presets.

The error bodies are those OpenAI (and, for the content filter, Azure OpenAI) answers with, because clients
tell errors apart by `error.code` and even by words of `error.message`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
Api = Literal["chat", "responses", "embeddings", "models", "messages", "ollama"]
"""OpenAI's three, Anthropic's Messages API and Ollama's chat API."""
FinishReason = str
"""OpenAI's are stop, length, tool_calls and content_filter; other servers have more."""
UsageIn = Literal["end", "each", "growing", "last", "halves", "middle", "choice", "never"]
"""Where a stream of chat completions reports its usage.

`end` in a last chunk without choices, as OpenAI does; `each` in full in every chunk; `growing` in every chunk, as far
as it has grown; `last` in the chunk with the finish reason; `halves` the input in the first chunk and the output in the
last; `middle` in a chunk that chunks with null follow; `choice` inside of the last choice; `never` not at all.
"""


class ToolCall(BaseModel):
    """A tool call of the reply. A string in `arguments` is sent verbatim, so it may be broken JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: Json | str = Field(default_factory=dict)
    id: str | None = None
    """None: `call_<request number>_<position>`, unique on one server."""


class Usage(BaseModel):
    """Tokens reported for one response."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Behaviour(BaseModel):
    """Which requests to respond to, how, and how often. Times are in seconds.

    A request is given to the first behaviour, in the order of scripting, that matches it and is due. Without
    one it gets the default answer. Everything left out is as in the default answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """The name in the request log; a preset has its own."""

    # Which requests
    api: Api | None = None
    """None: any endpoint except the list of models."""
    model: str | None = None
    contains: str | None = None
    """A substring of the prompt, which is the text of all messages."""
    sends: str | None = None
    """A substring of the compact JSON of the request's body without its messages, such as `"stream":true`."""
    nth: int | None = Field(default=None, ge=1)
    """Only the n-th matching request since this was scripted, counted from 1."""
    every: int | None = Field(default=None, ge=1)
    """Only every n-th matching request; with `times=None`, a constant rate of failures."""
    times: int | None = Field(default=1, ge=1)
    """How many requests it applies to; None: all, until `reset`."""

    # Before the answer
    delay: float | None = Field(default=None, ge=0)
    """Delay before the headers; None: the server's latency."""
    hold: bool = False
    """Wait for `release`, then respond: for tests that act during a call, without sleeping."""
    hang: bool = False
    """Never respond; the client's own timeout ends the request."""
    reset: bool = False
    """Reset the connection (TCP RST) instead of responding."""

    # The answer
    status: int = Field(default=200, ge=200, le=599)
    headers: dict[str, str] = Field(default_factory=dict)
    body: Any = None
    """Replaces the whole body: a string verbatim, anything else as JSON. From status 400 on, None is `error`
    as OpenAI sends it."""
    encoding: str = "utf-8"
    """The encoding of the body. Clients expect UTF-8."""
    error: Json | None = None
    """OpenAI's error object, from status 400 on and for `error_after`; None: the usual one of the status."""
    retry_after: float | None = Field(default=None, ge=0)
    retry_after_format: Literal["seconds", "date", "ms"] = "seconds"
    """`Retry-After: 2`, the same as an HTTP date (in whole seconds), or `retry-after-ms: 2000` alone."""
    content: str | Json | None = None
    """The reply; an object is sent as its JSON text."""
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    usage_in: UsageIn = "end"
    raw_usage: Any = None
    """Reported instead of `usage`, in OpenAI's chat completions: what no server should send."""
    reasoning: str | None = None
    """What the model thought first, as servers of open models send it (`reasoning_content`)."""
    malformed: bool = False
    """Send half of the JSON; in a stream, the third event is cut in half."""

    # While the answer is sent. One event is one `data:` of the stream.
    token_delay: float | None = Field(default=None, ge=0)
    """Delay before each event; None: the server's."""
    hold_after: int | None = Field(default=None, ge=0)
    """Wait for `release` after this many events, then go on. Streams only."""
    cut_after: int | None = Field(default=None, ge=0)
    """Close the connection after this many events or, without a stream, in the middle of the body."""
    end_after: int | None = Field(default=None, ge=0)
    """End the stream properly after this many events but without its last ones, like a proxy that times out."""
    stall_after: int | None = Field(default=None, ge=0)
    """Send nothing more after this many events, and keep the connection open."""
    error_after: int | None = Field(default=None, ge=0)
    """Send an error event after this many events, as OpenAI does when it fails mid-stream. Streams only."""

    def matches(self, *, api: Api, model: str, prompt: str, params: Json) -> bool:
        if api != self.api and not (self.api is None and api != "models"):
            return False
        if self.model is not None and self.model != model:
            return False
        if self.sends is not None and self.sends not in json.dumps(params, separators=(",", ":")):
            return False
        return self.contains is None or self.contains in prompt


def error_object(message: str, type_: str | None = None, code: str | None = None, param: str | None = None) -> Json:
    return {"message": message, "type": type_, "param": param, "code": code}


SERVER_ERROR = error_object("The server had an error while processing your request. Sorry about that!", "server_error")

_USUAL_ERRORS: dict[int, Json] = {
    400: error_object("Invalid value for 'temperature'.", "invalid_request_error", None, "temperature"),
    401: error_object(
        "Incorrect API key provided: test. You can find your API key at https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    403: error_object("Project does not have access to this model.", "invalid_request_error", "model_not_found"),
    404: error_object(
        "The model does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    429: error_object(
        "Rate limit reached on tokens per min (TPM): Limit 30000, Used 29500, Requested 1200. Please try "
        "again later. Visit https://platform.openai.com/account/rate-limits to learn more.",
        "tokens",
        "rate_limit_exceeded",
    ),
    503: error_object("The engine is currently overloaded, please try again later", "server_error"),
}


def usual_error(status: int) -> Json:
    """The error object that OpenAI usually sends with this status."""
    if status in _USUAL_ERRORS:
        return _USUAL_ERRORS[status]
    return SERVER_ERROR if status >= 500 else error_object("Invalid request.", "invalid_request_error")


def _gateway_page(title: str) -> str:
    return f"<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>\r\n"


Preset = Literal[
    "rate_limit",
    "quota",
    "auth",
    "forbidden",
    "not_found",
    "bad_request",
    "unprocessable",
    "context_length",
    "context_window",
    "content_filter",
    "content_filter_reply",
    "refusal",
    "length",
    "server_error",
    "bad_gateway",
    "overloaded",
    "gateway_timeout",
    "timeout",
    "reset",
    "cut_stream",
    "ended_stream",
    "stall_stream",
    "stream_error",
    "malformed",
    "empty",
]

_HTML = {"content-type": "text/html"}

PRESETS: dict[Preset, Behaviour] = {
    "rate_limit": Behaviour(status=429, retry_after=1),
    "quota": Behaviour(
        status=429,
        error=error_object(
            "You exceeded your current quota, please check your plan and billing details. For more "
            "information on this error, read the docs: "
            "https://platform.openai.com/docs/guides/error-codes/api-errors.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    "auth": Behaviour(status=401),
    "forbidden": Behaviour(status=403),
    "not_found": Behaviour(status=404),
    "bad_request": Behaviour(status=400),
    "unprocessable": Behaviour(status=422),
    "context_length": Behaviour(
        status=400,
        error=error_object(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 "
            "tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
    ),
    # The wording of the models with a configured input limit. LangChain knows an overflow by it, not by the
    # code.
    "context_window": Behaviour(
        status=400,
        error=error_object(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300012 "
            "tokens. Please reduce the length of the messages.",
            "invalid_request_error",
            "context_length_exceeded",
            "messages",
        ),
    ),
    # Azure OpenAI's shape: the prompt was refused before a model saw it.
    "content_filter": Behaviour(
        status=400,
        error={
            **error_object(
                "The response was filtered due to the prompt triggering Azure OpenAI's content management "
                "policy. Please modify your prompt and retry.",
                None,
                "content_filter",
                "prompt",
            ),
            "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True, "severity": "medium"}},
            },
        },
    ),
    # The answer was begun, then filtered: a success with a part of the text.
    "content_filter_reply": Behaviour(content="I can", finish_reason="content_filter"),
    "refusal": Behaviour(refusal="I'm sorry, I can't help with that."),
    "length": Behaviour(content="This answer ends in the", finish_reason="length"),
    "server_error": Behaviour(status=500),
    "bad_gateway": Behaviour(status=502, headers=_HTML, body=_gateway_page("502 Bad Gateway")),
    "overloaded": Behaviour(status=503),
    "gateway_timeout": Behaviour(status=504, headers=_HTML, body=_gateway_page("504 Gateway Time-out")),
    "timeout": Behaviour(hang=True),
    "reset": Behaviour(reset=True),
    "cut_stream": Behaviour(cut_after=3),
    "ended_stream": Behaviour(end_after=3),
    "stall_stream": Behaviour(stall_after=3),
    "stream_error": Behaviour(error_after=3),
    "malformed": Behaviour(malformed=True),
    "empty": Behaviour(body=""),
}


def behaviour(preset: Preset | Behaviour | None = None, /, **changes: Any) -> Behaviour:
    """A preset, or another behaviour, with changes; alone, the changes themselves.

    Raises `KeyError` for an unknown preset and pydantic's `ValidationError` for a field that does not exist
    or does not fit.
    """
    if preset is None:
        return Behaviour(**changes)
    if isinstance(preset, str):
        base = {**PRESETS[preset].model_dump(exclude_unset=True), "name": preset}
    else:
        base = preset.model_dump(exclude_unset=True)
    return Behaviour.model_validate({**base, **changes})
