"""OpenAI's chat model as the built-in agents use it, at OpenAI's own address or at any server that speaks its protocol.

LangChain's class drops parts of an answer that decide whether it is complete, and fails at others:

* the refusal in a stream, and whether the model has thought before it answered, are kept;
* of a tool call in a stream only the parsed arguments remain, which LangChain completes when they are cut off; the text
  they were parsed from is kept too (`ARGUMENTS_KEY`);
* a usage that isn't made of whole numbers makes LangChain raise (`models/openai_usage.py`);
* an answer in the form of a schema takes another way through OpenAI's client, which raises on one that was cut off, so
  that its usage is lost. Here it takes the way of all answers.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI

from backend.models.completeness import ARGUMENTS_KEY, REASONED_KEY
from backend.models.openai_stream import leave_chunks_as_they_come
from backend.models.openai_usage import readable_usage

_Model = TypeVar("_Model", bound=BaseChatOpenAI)
_REASONING = ("reasoning_content", "reasoning")


class _WholeRecord(BaseChatOpenAI):
    """Keeps the parts of an answer that LangChain's class drops."""

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        if made is not None and isinstance(made.message, AIMessageChunk) and chunk.get("choices"):
            delta = chunk["choices"][0].get("delta")
            if isinstance(delta, Mapping):
                made.message.additional_kwargs |= _kept(delta)
        return made

    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        if isinstance(response, dict):
            response["usage"] = readable_usage(response.get("usage"))
        elif (usage := getattr(response, "usage", None)) is not None:
            given = usage.model_dump(warnings=False) if hasattr(usage, "model_dump") else usage
            response.usage = readable_usage(given)
        return super()._create_chat_result(response, generation_info)


class OpenAIChat(_WholeRecord, ChatOpenAI):
    """OpenAI's model. See the module."""


class AzureOpenAIChat(_WholeRecord, AzureChatOpenAI):
    """OpenAI's model as Azure serves it. See the module."""


def _kept(delta: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if isinstance(delta.get("refusal"), str) and delta["refusal"]:
        kept["refusal"] = delta["refusal"]
    if any(delta.get(name) for name in _REASONING):
        kept[REASONED_KEY] = True
    calls = delta.get("tool_calls")
    pieces: dict[str, str] = {}
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), str):
            pieces[str(call.get("index", 0))] = function["arguments"]
    if pieces:
        kept[ARGUMENTS_KEY] = pieces
    return kept


class _PlainClient:
    """OpenAI's client, with structured answers asked for like all others."""

    def __init__(self, client: Any, completions: Any) -> None:
        self._client = client
        self._completions = completions
        raw = SimpleNamespace(parse=completions.with_raw_response.create)
        chat = SimpleNamespace(completions=SimpleNamespace(stream=self._stream, with_raw_response=raw))
        self.chat, self.beta = chat, SimpleNamespace(chat=chat)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _stream(self, **given: Any) -> "_Opening":
        return _Opening(self._completions, given)


class _Opening:
    """The context of a stream that isn't open yet."""

    def __init__(self, completions: Any, given: Mapping[str, Any]) -> None:
        self._completions = completions
        self._given = given
        self._stream: Any = None

    async def __aenter__(self) -> Any:
        self._stream = await self._completions.create(**{**self._given, "stream": True})
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        await self._stream.close()


def openai_chat(name: str, **arguments: Any) -> OpenAIChat:
    """Build the model of that name. `arguments` are those of `ChatOpenAI`."""
    return _whole(OpenAIChat(model=name, **arguments))


def azure_openai_chat(name: str, **arguments: Any) -> AzureOpenAIChat:
    """Build the model of that name, which is also its deployment's. `arguments` are those of `AzureChatOpenAI`."""
    return _whole(AzureOpenAIChat(model=name, **arguments))


def _whole(model: _Model) -> _Model:
    leave_chunks_as_they_come(model)
    model.root_async_client = _PlainClient(model.root_async_client, model.async_client)
    return model
