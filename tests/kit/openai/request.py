"""A request to the fake OpenAI server, read from the body of either API."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass, field
from typing import Any

import PIL.Image

from tests.kit.openai.behaviour import Api, Json

TOKEN_CHARACTERS = 4  # the usual estimate for English; here it is the definition
IMAGE_TOKENS = 85  # OpenAI's price of a low-detail image


def tokens(text: str) -> int:
    return math.ceil(len(text) / TOKEN_CHARACTERS)


class InvalidRequestError(ValueError):
    """The API does not accept the body; OpenAI responds with 400."""


@dataclass(frozen=True)
class Image:
    """`size` is the number of bytes of a data URL's content, and None of a picture at an address; `pixels` are its
    width and height, None of what Pillow can't read."""

    mime_type: str
    size: int | None
    pixels: tuple[int, int] | None = None

    def __str__(self) -> str:
        return self.mime_type if self.size is None else f"{self.mime_type} {self.size} bytes"

    @classmethod
    def from_url(cls, url: str) -> Image:
        if not url.startswith("data:"):
            return cls(url, None)
        head, _, data = url.partition(",")
        size = len(data) * 3 // 4 - data[-2:].count("=")
        return cls(head.removeprefix("data:").split(";")[0], size, _pixels(data))


def _pixels(data: str) -> tuple[int, int] | None:
    """Read the size from the beginning of the file, where all supported formats have it."""
    try:
        with PIL.Image.open(io.BytesIO(base64.b64decode(data[:65_536]))) as opened:
            return opened.size
    except (ValueError, OSError, SyntaxError):
        return None


@dataclass(frozen=True)
class ModelRequest:
    api: Api
    model: str
    stream: bool = False
    include_usage: bool = False
    prompt: str = ""
    """The text of all messages, one per line."""
    last_user: str = ""
    images: tuple[Image, ...] = ()
    tools: dict[str, Json] = field(default_factory=dict)
    """The parameters' schema of each tool."""
    forced_tool: str | None = None
    schema: Json | None = None
    """The reply has to fit it."""
    json_mode: bool = False
    max_tokens: int | None = None
    n: int = 1
    params: Json = field(default_factory=dict)
    """The body without the messages."""

    @property
    def input_tokens(self) -> int:
        return tokens(self.prompt) + IMAGE_TOKENS * len(self.images)


def _embedding_request(model: str, body: dict[str, Any]) -> ModelRequest:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequestError("'$.input' is invalid.")
    return ModelRequest(api="embeddings", model=model, prompt="\n".join(texts), params=body)


def read_request(api: Api, body: Any) -> ModelRequest:
    """Raises `InvalidRequestError` where OpenAI would respond with 400."""
    if not isinstance(body, dict):
        raise InvalidRequestError("We could not parse the JSON body of your request.")
    model = body.get("model")
    if not isinstance(model, str):
        raise InvalidRequestError("you must provide a model parameter")
    if api == "embeddings":
        return _embedding_request(model, body)
    given = body.get("input") if api == "responses" else body.get("messages")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not all(isinstance(m, dict) for m in given):
        raise InvalidRequestError("Missing required parameter: 'messages'.")
    if isinstance(body.get("instructions"), str):
        given = [{"role": "system", "content": body["instructions"]}, *given]

    texts: list[str] = []
    images: list[Image] = []
    last_user = ""
    for message in given:
        text = _read_message(message, images)
        texts.append(text)
        if message.get("role") == "user":
            last_user = text
    tools = {name: schema for name, schema in map(_read_tool, body.get("tools") or []) if name}
    format_ = _format(api, body)
    return ModelRequest(
        api=api,
        model=model,
        stream=bool(body.get("stream", api == "ollama")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        prompt="\n".join(texts),
        last_user=last_user,
        images=tuple(images),
        tools=tools,
        forced_tool=_forced_tool(body.get("tool_choice"), list(tools)),
        schema=format_.get("schema") if format_.get("type") == "json_schema" else None,
        json_mode=format_.get("type") == "json_object",
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens") or body.get("max_output_tokens"),
        n=body.get("n") or 1,
        params={k: v for k, v in body.items() if k not in ("messages", "input")},
    )


def _read_message(message: Json, images: list[Image]) -> str:
    if message.get("type") == "function_call_output":
        return str(message.get("output", ""))
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if part.get("type") == "image_url":
            images.append(Image.from_url(part["image_url"]["url"]))
        elif part.get("type") == "input_image":
            images.append(Image.from_url(part.get("image_url") or part.get("file_id") or ""))
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    return " ".join(texts)


def _read_tool(tool: Json) -> tuple[str, Json]:
    function = tool.get("function", tool)  # chat nests it, responses does not
    return function.get("name", ""), function.get("parameters") or {}


def _forced_tool(choice: Any, names: list[str]) -> str | None:
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        return name if name in names else None
    return names[0] if choice in ("required", "any") and names else None


def _format(api: Api, body: Json) -> Json:
    """The wanted format, with `schema` beside `type` whichever the API."""
    if api == "chat":
        given = body.get("response_format") or {}
        return {**given, "schema": (given.get("json_schema") or {}).get("schema")}
    return dict((body.get("text") or {}).get("format") or {})
