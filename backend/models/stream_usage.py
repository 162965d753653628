"""Has streamed answers count their tokens also where a user's graph makes its model itself.

LangGraph streams every model call of a graph that is watched. `ChatOpenAI` asks for a stream's usage by itself only
at OpenAI's own address; elsewhere tokens, and so cost, would be lost. The servers that speak OpenAI's protocol (vLLM,
LiteLLM, Ollama, llama.cpp, …) know `stream_options.include_usage`; for one that doesn't, VISUAL_AI_STREAM_USAGE=false
leaves the default as it is.
"""

from functools import lru_cache, wraps
from typing import Any


@lru_cache(maxsize=1)
def ask_for_usage() -> None:
    """Make it `ChatOpenAI`'s default in this process to ask; whatever a user's code says explicitly still counts."""
    from langchain_openai.chat_models.base import BaseChatOpenAI

    # The library has no setting for it that a user's own code wouldn't have to pass.
    original = BaseChatOpenAI._should_stream_usage

    @wraps(original)
    def should_stream_usage(self: BaseChatOpenAI, stream_usage: bool | None = None, **kwargs: Any) -> bool:
        said = (stream_usage, self.stream_usage, kwargs.get("stream_options"), self.model_kwargs.get("stream_options"))
        return original(self, stream_usage, **kwargs) or all(value is None for value in said)

    BaseChatOpenAI._should_stream_usage = should_stream_usage  # type: ignore[method-assign]  # see above
