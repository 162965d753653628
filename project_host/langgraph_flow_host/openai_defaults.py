"""Changes two defaults of OpenAI's clients, if the project has them: what the product's error policy relies on.

* OpenAI's client retries by itself, unseen; the error policy retries instead.
* `ChatOpenAI` asks for the usage of streamed answers only at OpenAI's own address; elsewhere tokens would be lost.

Whatever the project's code sets itself still counts. Versions differ, so what isn't there is left alone.
"""

import importlib.util
from contextlib import suppress
from functools import wraps
from typing import Any


def change(*, sdk_retries: bool, stream_usage: bool) -> None:
    """Change the defaults, unless the product's settings keep the library's own."""
    with suppress(Exception):  # of whatever version of the library is broken
        if not sdk_retries and importlib.util.find_spec("openai") is not None:
            import openai

            for kind in (openai.OpenAI, openai.AsyncOpenAI, openai.AzureOpenAI, openai.AsyncAzureOpenAI):
                kind.__init__ = _without_retries(kind.__init__)  # type: ignore[method-assign]  # see above
    with suppress(Exception):
        if stream_usage and importlib.util.find_spec("langchain_openai") is not None:
            from langchain_openai.chat_models.base import BaseChatOpenAI

            original = BaseChatOpenAI._should_stream_usage
            BaseChatOpenAI._should_stream_usage = _with_usage(original)  # type: ignore[method-assign]  # see above


def _without_retries(original: Any) -> Any:
    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_retries", 0)
        original(self, *args, **kwargs)

    return init


def _with_usage(original: Any) -> Any:
    @wraps(original)
    def should_stream_usage(self: Any, stream_usage: Any = None, **kwargs: Any) -> bool:
        own = (stream_usage, getattr(self, "stream_usage", None), kwargs.get("stream_options"))
        silent = all(value is None for value in own) and "stream_options" not in (self.model_kwargs or {})
        return original(self, stream_usage, **kwargs) or silent

    return should_stream_usage
