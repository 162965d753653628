"""Leaves retries to the error policy also where a user's graph makes its model itself.

OpenAI's client tries a request again by itself, unseen: it isn't counted, doesn't heed a long `Retry-After` and
repeats what can't succeed. Whatever a user's code says explicitly (`max_retries=…`) still counts, and
VISUAL_AI_SDK_RETRIES=true leaves the client's own default.
"""

from functools import lru_cache, wraps
from typing import Any


@lru_cache(maxsize=1)
def switch_off_sdk_retries() -> None:
    """Make it the default of OpenAI's clients in this process not to try again."""
    import openai

    # The library has no setting for it that a user's own code wouldn't have to pass.
    for client in (openai.OpenAI, openai.AsyncOpenAI, openai.AzureOpenAI, openai.AsyncAzureOpenAI):
        client.__init__ = _without_retries(client.__init__)  # type: ignore[method-assign]  # see above


def _without_retries(original: Any) -> Any:
    @wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_retries", 0)
        original(self, *args, **kwargs)

    return init
