"""Says one word after the other for as long as it is asked to, as a model does that thinks aloud."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langgraph.graph import START, MessagesState, StateGraph

SECONDS = 0.1
"""Between two words."""


class Musing(GenericFakeChatModel):
    """Counts to the number that the last message names."""

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for number in range(1, int(messages[-1].text) + 1):
            await asyncio.sleep(SECONDS)
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{number} ", id=f"musing-{len(messages)}"))


async def muse(state: MessagesState) -> dict[str, Any]:
    answer = await Musing(messages=iter(())).ainvoke(state["messages"])
    return {"messages": [answer]}


graph = StateGraph(MessagesState).add_node("muse", muse).add_edge(START, "muse").compile()
