"""An agent of LangChain's that calls a tool, without a paid model."""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word}: a word"


class Scripted(FakeMessagesListChatModel):
    """Says what it was told to, one answer after the other, and begins again."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> "Scripted":  # prescribed
        return self


call = {"id": "call-1", "name": "look_up", "args": {"word": "tide"}}
model = Scripted(responses=[AIMessage(content="", tool_calls=[call]), AIMessage(content="It is a word.")])
graph = create_agent(model=model, tools=[look_up], system_prompt="Look things up.")
