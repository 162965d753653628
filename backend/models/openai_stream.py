"""Hands the chunks of OpenAI's streamed answers to LangChain as the JSON they arrive in.

OpenAI's client turns each chunk into an object, and LangChain turns that back into a dictionary. Together this takes
half of the CPU time that an agent with a streamed answer costs its process.
"""

from typing import Any

from langchain_core.language_models import BaseChatModel
from openai import AsyncStream


class _Completions:
    """OpenAI's asynchronous resource, with streams that yield dictionaries, which LangChain accepts as well."""

    def __init__(self, completions: Any) -> None:
        self._completions = completions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._completions, name)

    async def create(self, **given: Any) -> Any:
        answer = await self._completions.create(**given)
        if isinstance(answer, AsyncStream):
            # The client's own type for unparsed data. A client that doesn't know it keeps yielding objects.
            answer._cast_to = object
        return answer


def leave_chunks_as_they_come(model: BaseChatModel) -> None:
    """Make a `ChatOpenAI` pass on the chunks of streamed answers as JSON. Any other model is left unchanged."""
    completions = getattr(model, "async_client", None)
    if completions is not None:
        model.async_client = _Completions(completions)  # type: ignore[attr-defined]  # a field of ChatOpenAI
