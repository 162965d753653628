"""Accepts a whole answer where a stream was requested.

Some servers and proxies ignore `"stream": true` and answer with one JSON object. OpenAI's client looks for events in
it, finds none and drops the answer, which has been paid for. So a decoder of events turns such an object into the
events of a stream. An ordinary stream passes through unchanged.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, wraps
from itertools import chain
from typing import Any

from langchain_core.language_models import BaseChatModel
from openai import AsyncOpenAI, OpenAI

from backend.core.errors.words import MAX_BODY

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def accept_whole_answers(model: BaseChatModel, on_whole: Callable[[], None] | None = None) -> None:
    """Make an OpenAI model accept whole answers. `on_whole` is called for each. Any other model is left unchanged."""
    for name in ("async_client", "client"):  # the resources, which know their client
        client = getattr(getattr(model, name, None), "_client", None)
        if isinstance(client, OpenAI | AsyncOpenAI):
            client._make_sse_decoder = _accepting(client._make_sse_decoder, on_whole)  # type: ignore[method-assign]  # see above


@lru_cache(maxsize=1)
def accept_whole_answers_everywhere() -> None:
    """Make all of OpenAI's clients in this process accept whole answers."""
    for kind in (OpenAI, AsyncOpenAI):
        original = kind._make_sse_decoder

        @wraps(original)
        def make(self: Any, original: Any = original) -> Any:
            return _Decoder(original(self), None)

        kind._make_sse_decoder = make  # type: ignore[method-assign]  # see above


def _accepting(make: Callable[[], Any], on_whole: Callable[[], None] | None) -> Callable[[], Any]:
    return lambda: _Decoder(make(), on_whole)


class _Decoder:
    """A decoder of events that turns a whole answer into those of a stream."""

    def __init__(self, decoder: Any, on_whole: Callable[[], None] | None) -> None:
        self._decoder = decoder
        self._on_whole = on_whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def iter_bytes(self, data: Iterator[bytes]) -> Iterator[Any]:
        read: list[bytes] = []
        for piece in data:
            read.append(piece)
            if (beginning := _beginning(read)) and not beginning.startswith(b"{"):
                break
        body = b"".join(read)
        if (events := self._events(body)) is not None:
            yield from events
        else:
            yield from self._decoder.iter_bytes(chain([body], data))

    async def aiter_bytes(self, data: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        read: list[bytes] = []
        async for piece in data:
            read.append(piece)
            if (beginning := _beginning(read)) and not beginning.startswith(b"{"):
                break
        body = b"".join(read)
        if (events := self._events(body)) is not None:
            for event in events:
                yield event
            return

        async def all_of_it() -> AsyncIterator[bytes]:
            yield body
            async for piece in data:
                yield piece

        async for event in self._decoder.aiter_bytes(all_of_it()):
            yield event

    def _events(self, body: bytes) -> list[Any] | None:
        """The events of a whole answer; None for anything else."""
        answer: Any = None
        if _beginning([body]).startswith(b"{"):
            with suppress(ValueError, RecursionError):
                answer = json.loads(body.decode("utf-8-sig"))
        chunks = chunks_of(answer)
        if chunks is None:
            return None
        if self._on_whole is not None:
            self._on_whole()
        from openai._streaming import ServerSentEvent

        texts = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
        return [ServerSentEvent(data=text) for text in texts]


def _beginning(read: list[bytes]) -> bytes:
    """The first bytes that aren't white space; nothing if there are none yet."""
    first = b"".join(read) if len(read) == 1 or sum(map(len, read)) <= MAX_BODY else read[0]
    return first.lstrip().removeprefix(_BYTE_ORDER_MARK).lstrip()


def chunks_of(answer: Any) -> list[dict[str, Any]] | None:
    """The chunks of the stream that would have delivered this chat completion; None if it is none."""
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not isinstance(choices, list) or not choices:
        return None
    if not all(isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping) for choice in choices):
        return None
    kept = ("id", "created", "model", "service_tier", "system_fingerprint")
    base = {name: answer[name] for name in kept if name in answer} | {"object": "chat.completion.chunk"}
    begun, ended = [], []
    for position, choice in enumerate(choices):
        delta = {"role": "assistant", **choice["message"]}
        if isinstance(calls := delta.get("tool_calls"), list):
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        common = {"index": choice.get("index", position), "logprobs": choice.get("logprobs")}
        begun.append({**common, "delta": delta, "finish_reason": None})
        ended.append({**common, "logprobs": None, "delta": {}, "finish_reason": choice.get("finish_reason")})
    chunks = [{**base, "choices": begun}, {**base, "choices": ended}]
    return chunks if answer.get("usage") is None else [*chunks, {**base, "choices": [], "usage": answer["usage"]}]
