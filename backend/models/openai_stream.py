"""Reads the streamed answers of OpenAI's protocol in the way that the many servers which speak it need.

OpenAI's client turns each chunk into an object, and LangChain turns that back into a dictionary. Together this takes
half of the CPU time that an agent with a streamed answer costs its process, so chunks stay the JSON they arrive in. On
their way three things are put right:

* Neither the client nor LangChain notices an error in a shape other than OpenAI's: it would look like an empty answer,
  and the server's words would be lost. Such chunks raise.
* Some servers repeat the usage, as it is or as it grows, in every chunk, and LangChain adds up what it finds. It is
  held back and reported once, at the end, each number as it was last reported.
* Some servers repeat the finish reason, and LangChain joins the repetitions to one word. Only the first one passes.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Self, cast

from langchain_core.language_models import BaseChatModel
from openai import APIError, AsyncStream

from backend.core.errors.words import MAX_BODY, parsed, words_of
from backend.models.openai_usage import UsageInChunks

_ANSWERS = ("choices", "usage", "prompt_filter_results")
"""A chunk with one of these is no error."""


class _Completions:
    """OpenAI's asynchronous resource, with streams that yield dictionaries, which LangChain accepts as well."""

    def __init__(self, completions: Any) -> None:
        self._completions = completions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._completions, name)

    async def create(self, **given: Any) -> Any:
        answer = await self._completions.create(**given)
        if not isinstance(answer, AsyncStream):
            return answer
        # The client's own type for unparsed data. A client that doesn't know it keeps yielding objects.
        answer._cast_to = object
        return _Chunks(answer)


class _Listener:
    """A decoder of events that keeps the beginning of a response until its first event."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.beginning = b""

    async def aiter_bytes(self, data: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        listening = True

        async def heard() -> AsyncIterator[bytes]:
            async for piece in data:
                if listening and len(self.beginning) < MAX_BODY:
                    self.beginning += piece
                yield piece

        async for event in self._decoder.aiter_bytes(heard()):
            listening, self.beginning = False, b""
            yield event


class _Chunks:
    """A stream of chunks. Raises an `APIError` with the server's own words for one that is no part of an answer."""

    def __init__(self, stream: "AsyncStream[Any]") -> None:
        self._stream = stream
        self._listener = _Listener(stream._decoder)
        stream._decoder = cast(Any, self._listener)
        self._iterator = self._checked()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterator

    async def __anext__(self) -> Any:
        return await anext(self._iterator)

    async def close(self) -> None:
        """Close the response."""
        await self._stream.close()

    async def _checked(self) -> AsyncIterator[Any]:
        begun, usage, ended = False, UsageInChunks(), set[tuple[Any, Any]]()
        try:
            async for chunk in self._stream:
                begun = True
                self._check(chunk)
                if isinstance(chunk, dict):
                    _drop_repeated_end(chunk, ended)
                    if not usage.take(chunk):
                        continue
                yield chunk
        except UnicodeDecodeError as error:
            raise self._error("The stream has bytes other than UTF-8.") from error
        if not begun and (text := self._listener.beginning.decode(errors="replace").strip()):
            # A response without events: an error with status 200, or a page of a proxy.
            raise self._error(parsed(text))
        if (last := usage.last_chunk()) is not None:
            yield last

    def _check(self, chunk: Any) -> None:
        """Raise if a chunk is neither a part of an answer nor the client's own object."""
        if isinstance(chunk, Mapping):
            failed = chunk.get("object") == "error" or chunk.get("error")
            if chunk and (failed or not any(name in chunk for name in _ANSWERS)):
                raise self._error(chunk)
            choices = chunk.get("choices")
            for choice in choices if isinstance(choices, list) else ():
                delta = choice.get("delta") if isinstance(choice, Mapping) else choice
                content = delta.get("content") if isinstance(delta, Mapping) else None
                if not isinstance(delta, Mapping | None) or not isinstance(content, str | list | None):
                    raise self._error({"message": "The stream contains a chunk without readable content.", **chunk})
        elif chunk is None or isinstance(chunk, str | int | float | list):
            raise self._error(chunk)

    def _error(self, body: Any) -> APIError:
        words = words_of(body) or "The stream contains what is no part of an answer."
        return APIError(words, request=self._stream.response.request, body=body)


def _drop_repeated_end(chunk: dict[str, Any], ended: set[tuple[Any, Any]]) -> None:
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict) or not isinstance(reason := choice.get("finish_reason"), str) or not reason:
            continue
        end = (choice.get("index"), reason)
        if end in ended:
            choice["finish_reason"] = None
        ended.add(end)


def leave_chunks_as_they_come(model: BaseChatModel) -> None:
    """Make a `ChatOpenAI` pass on the chunks of streamed answers as JSON, after a check.

    Any other model is left unchanged.
    """
    completions = getattr(model, "async_client", None)
    if completions is not None:
        model.async_client = _Completions(completions)  # type: ignore[attr-defined]  # a field of ChatOpenAI
