"""Changes defaults of OpenAI's clients in this process, for graphs of users, which make their models themselves.

The libraries have no settings for this that a user's own code wouldn't have to pass, so constructor and methods are
wrapped. Whatever a user's code sets explicitly still counts.

* OpenAI's client retries a request by itself, unseen: such a retry isn't counted, ignores a long `Retry-After` and
  repeats what can't succeed. The error policy retries instead. `VISUAL_AI_SDK_RETRIES=true` keeps the client's default.
* LangGraph streams every model call of a graph that is watched, but `ChatOpenAI` asks for a stream's usage only at
  OpenAI's own address; elsewhere tokens, and so cost, would be lost. The servers that speak OpenAI's protocol (vLLM,
  LiteLLM, Ollama, llama.cpp, …) know `stream_options.include_usage`. For one that doesn't,
  `VISUAL_AI_STREAM_USAGE=false` keeps the default.
* LangChain adds up every usage in a stream, but some servers repeat theirs in each chunk: only the last one counts.
* A server may refuse to stream, or to count the tokens of a stream, or ignore the wish. The answer is then requested
  whole, as for built-in agents, and a whole answer is accepted. `VISUAL_AI_STREAMING=false` requests all answers whole.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from functools import lru_cache, wraps
from typing import Any

from backend.models.adaptation import ModeMemory, memory_of
from backend.models.refusals import Feature, refused_feature


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


@lru_cache(maxsize=1)
def accept_refused_streams(*, streaming: bool) -> None:
    """Make OpenAI's models request an answer whole if their server refuses a stream, or always without `streaming`.

    The models of built-in agents are left alone: `backend/models/adaptation.py` does the same for them.
    """
    from langchain_openai import ChatOpenAI

    from backend.models.whole_answers import accept_whole_answers_everywhere

    accept_whole_answers_everywhere()
    ChatOpenAI._astream = _astream(ChatOpenAI._astream, streaming)  # type: ignore[method-assign]  # see above
    ChatOpenAI._stream = _stream(ChatOpenAI._stream, streaming)  # type: ignore[method-assign]  # see above


def _astream(original: Any, default: bool) -> Any:
    @wraps(original)
    async def astream(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        begun = False
        while (asked := _asked(self, default, kwargs)) is not None:
            try:
                async for chunk in original(self, *args, **asked):
                    begun = True
                    yield chunk
                return
            except Exception as error:
                if begun or not _learns(self, error, asked):
                    raise
        yield _whole(await self._agenerate(*args, **_unstreamed(kwargs)))

    return astream


def _stream(original: Any, default: bool) -> Any:
    @wraps(original)
    def stream(self: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        begun = False
        while (asked := _asked(self, default, kwargs)) is not None:
            try:
                for chunk in original(self, *args, **asked):
                    begun = True
                    yield chunk
                return
            except Exception as error:
                if begun or not _learns(self, error, asked):
                    raise
        yield _whole(self._generate(*args, **_unstreamed(kwargs)))

    return stream


def _asked(model: Any, default: bool, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a stream that the model's server may accept; None if it won't stream."""
    if _is_built_in(model):
        return dict(given)
    memory = _memory(model)
    if memory.refuses("streaming") or not (default or model.streaming):
        return None
    if memory.refuses("stream_usage"):
        return {key: value for key, value in given.items() if key != "stream_options"} | {"stream_usage": False}
    return dict(given)


def _learns(model: Any, error: Exception, asked: Mapping[str, Any]) -> bool:
    """Whether the error refuses a part of what was asked for, which is then remembered."""
    if _is_built_in(model):
        return False
    used: set[Feature] = {"streaming"} if asked.get("stream_usage") is False else {"streaming", "stream_usage"}
    feature = refused_feature(error, used)
    if feature is None:
        return False
    _memory(model).learn(feature, f"{model.model_name} refuses {feature}; it is asked without from now on: {error}")
    return True


def _is_built_in(model: Any) -> bool:
    from backend.models.openai_chat import OpenAIChat

    return isinstance(model, OpenAIChat)


def _memory(model: Any) -> ModeMemory:
    return memory_of(f"{model.model_name}@{model.openai_api_base or ''}")


def _unstreamed(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key not in ("stream", "stream_usage", "stream_options")}


def _whole(result: Any) -> Any:
    """A whole answer as the only chunk of a stream."""
    from langchain_core.messages import AIMessageChunk
    from langchain_core.outputs import ChatGenerationChunk

    generation = result.generations[0]
    message, output = generation.message, result.llm_output or {}
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata={
            **{key: value for key, value in output.items() if key != "token_usage"},
            **message.response_metadata,
        },
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=chunk, generation_info=generation.generation_info)
