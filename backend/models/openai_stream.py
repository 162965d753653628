"""Streamed answers of OpenAI's models as the JSON that they come in.

OpenAI's client makes an object of each piece, and LangChain a dictionary of that again: half of all that an agent with
a streamed answer costs its process.
"""

from typing import Any

from langchain_core.language_models import BaseChatModel
from openai import AsyncStream


class _Completions:
    """OpenAI's asynchronous resource, whose streams give dictionaries, which LangChain takes as well."""

    def __init__(self, completions: Any) -> None:
        self._completions = completions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._completions, name)

    async def create(self, **given: Any) -> Any:
        answer = await self._completions.create(**given)
        if isinstance(answer, AsyncStream):
            # What the client itself calls a type for "as it came". A client that doesn't know it goes on with objects.
            answer._cast_to = object
        return answer


def leave_chunks_as_they_come(model: BaseChatModel) -> None:
    """Have the pieces of streamed answers handed on as JSON. For a `ChatOpenAI`; any other is left as it is."""
    completions = getattr(model, "async_client", None)
    if completions is not None:
        model.async_client = _Completions(completions)  # type: ignore[attr-defined]  # a field of ChatOpenAI
