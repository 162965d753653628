"""The base of the two offline chat models: parameters, streaming and usage. Subclasses do the analysis."""

import asyncio
import os
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class LocalChatModel(BaseChatModel):
    """A chat model that computes its answer on this machine, at no cost and without any network.

    It accepts the standard parameters, so that it can stand in for any model, but only `stop` has an effect: nothing is
    sampled, sent or retried. `usage_metadata` counts words separated by white space: those of all messages as input,
    and those of the answer as output. Pictures count as zero. The price is zero.
    """

    model: str
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    stop: list[str] | None = None
    streaming: bool = False

    @abstractmethod
    def _analyse(self, messages: Sequence[BaseMessage]) -> tuple[str, dict[str, Any]]:
        """Return the answer, and the same as JSON for `additional_kwargs["analysis"]`. Blocking."""

    @property
    def _llm_type(self) -> str:
        return self.model.replace(":", "-")

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "local"
        params["ls_model_name"] = params.get("ls_model_name", self.model).removeprefix("local:")
        return params

    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None) -> AIMessage:
        content, analysis = self._analyse(messages)
        for sequence in stop or self.stop or ():
            if sequence:
                content = content.partition(sequence)[0]
        read, written = sum(len(message.text.split()) for message in messages), len(content.split())
        return AIMessage(
            content=content,
            additional_kwargs={"analysis": analysis},
            response_metadata={"model_name": self.model, "model_provider": "local"},
            usage_metadata=UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written),
        )

    async def _answer_in_thread(self, messages: Sequence[BaseMessage], stop: list[str] | None) -> AIMessage:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_workers(os.getpid()), self._answer, messages, stop)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  # there is nothing to report meanwhile
        **_: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages, stop))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002  # as above
        **_: Any,
    ) -> ChatResult:
        answer = await self._answer_in_thread(messages, stop)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages, stop)):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **_: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(await self._answer_in_thread(messages, stop)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


@lru_cache(maxsize=1)
def _workers(_process: int) -> ThreadPoolExecutor:
    """The threads in which this process runs analyses. A forked child has none of its parent's and starts its own.

    They are separate from the event loop's few threads, where a hundred waiting pictures would delay even the look-up
    of a host's name.
    """
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="local-model")


def _chunks(answer: AIMessage) -> Iterator[ChatGenerationChunk]:
    """One chunk per line. The last one carries what may occur only once: usage, analysis, the model's name."""
    lines = answer.text.splitlines(keepends=True) or [""]
    for line in lines[:-1]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=line))
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content=lines[-1],
            additional_kwargs=answer.additional_kwargs,
            response_metadata=answer.response_metadata,
            usage_metadata=answer.usage_metadata,
            chunk_position="last",
        )
    )
