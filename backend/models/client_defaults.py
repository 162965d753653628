"""Changes defaults of OpenAI's clients in this process, for graphs of users, which make their models themselves.

Neither library has a setting for this that a user's own code wouldn't have to pass, so constructor and methods are
wrapped. Whatever a user's code sets explicitly still counts.

* OpenAI's client retries a request by itself, unseen: such a retry isn't counted, ignores a long `Retry-After` and
  repeats what can't succeed. The error policy retries instead. `VISUAL_AI_SDK_RETRIES=true` keeps the client's default.
* LangGraph streams every model call of a graph that is watched, but `ChatOpenAI` asks for a stream's usage only at
  OpenAI's own address; elsewhere tokens, and so cost, would be lost. The servers that speak OpenAI's protocol (vLLM,
  LiteLLM, Ollama, llama.cpp, …) know `stream_options.include_usage`. For one that doesn't,
  `VISUAL_AI_STREAM_USAGE=false` keeps the default.
* LangChain adds up every usage in a stream, but some servers repeat theirs in each chunk: only the last one counts.
"""

from collections.abc import AsyncIterator, Iterator
from functools import lru_cache, wraps
from typing import Any


@lru_cache(maxsize=1)
def disable_sdk_retries() -> None:
    """Make OpenAI's clients not retry unless they are told to."""
    import openai

    for client in (openai.OpenAI, openai.AsyncOpenAI, openai.AzureOpenAI, openai.AsyncAzureOpenAI):
        client.__init__ = _without_retries(client.__init__)  # type: ignore[method-assign]  # see above


@lru_cache(maxsize=1)
def request_stream_usage() -> None:
    """Make `ChatOpenAI` ask for the usage of streamed answers at any address."""
    from langchain_openai.chat_models.base import BaseChatOpenAI

    original = BaseChatOpenAI._should_stream_usage

    @wraps(original)
    def should_stream_usage(self: BaseChatOpenAI, stream_usage: bool | None = None, **kwargs: Any) -> bool:
        given = (stream_usage, self.stream_usage, kwargs.get("stream_options"), self.model_kwargs.get("stream_options"))
        return original(self, stream_usage, **kwargs) or all(value is None for value in given)

    BaseChatOpenAI._should_stream_usage = should_stream_usage  # type: ignore[method-assign]  # see above


@lru_cache(maxsize=1)
def count_usage_once() -> None:
    """Make `ChatOpenAI` report the usage of a streamed answer once, as the server reported it last."""
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk
    from langchain_openai.chat_models.base import BaseChatOpenAI

    stream, astream = BaseChatOpenAI._stream, BaseChatOpenAI._astream

    def held_back(chunk: ChatGenerationChunk) -> tuple[ChatGenerationChunk | None, ChatGenerationChunk | None]:
        """What is left of a chunk, and what to report at the end."""
        message = chunk.message
        used = message.usage_metadata if isinstance(message, AIMessageChunk) else None
        if not isinstance(message, AIMessageChunk) or used is None:
            return chunk, None
        if not (message.content or message.tool_call_chunks or chunk.generation_info):
            return None, chunk
        message.usage_metadata = None
        return chunk, ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=used))

    @wraps(stream)
    def once(self: BaseChatOpenAI, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        last = None
        for chunk in stream(self, *args, **kwargs):
            rest, used = held_back(chunk)
            last = used or last
            if rest is not None:
                yield rest
        if last is not None:
            yield last

    @wraps(astream)
    async def once_async(self: BaseChatOpenAI, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        last = None
        async for chunk in astream(self, *args, **kwargs):
            rest, used = held_back(chunk)
            last = used or last
            if rest is not None:
                yield rest
        if last is not None:
            yield last

    BaseChatOpenAI._stream = once  # type: ignore[method-assign]  # see above
    BaseChatOpenAI._astream = once_async  # type: ignore[method-assign]  # see above


def _without_retries(original: Any) -> Any:
    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_retries", 0)
        original(self, *args, **kwargs)

    return init
