"""The text agent reads one text, and answers a question about it or summarises it.

Nodes: prepare → analyse → report, and then structure if there is an `output_schema`. With tools, analyse ↔ tool.
"""

import asyncio
import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, check_length, optional_text, required_text
from backend.agents.structured import add_structure
from backend.agents.tools.node import add_tools, asking, said
from backend.models.offline.text_analysis import detect_language, key_phrases, split_sentences, statistics
from backend.models.prompts.document import fence, instructions
from backend.models.reply import Model, local_analysis, notice_of

SYSTEM_PROMPT = (
    "You read the text inside the <text> element and answer the question about it, in the question's "
    "language. Rely on the text alone and say so when it does not hold the answer."
)
DEFAULT_QUERY = "Summarise this text: its subject, its main points and its conclusions."


class TextInput(TypedDict, total=False):
    """`text` is what to read. `query` is the question, if there is one."""

    query: str | None
    text: str


class TextOutput(TypedDict, total=False):
    """The agent's result.

    `summary` is an offline model's extract, or else the answer itself. `language` is an ISO 639-1 code; `statistics`
    counts characters, words and sentences. `offline` says that no language model was involved; `notice` explains what
    that means. `data` is the answer in the form of the `output_schema`, if there is one.
    """

    answer: str
    summary: str
    key_phrases: list[str]
    language: str | None
    statistics: dict[str, Any]
    offline: bool
    notice: str | None
    data: dict[str, Any]


class TextState(TextInput, TextOutput, total=False):
    """The graph's state. `reply` is the model's unmodified answer, `conversation` what tools have to do with it."""

    reply: AIMessage
    conversation: Annotated[list[AnyMessage], operator.add]


def build(config: AgentConfig, model: Model, deps: AgentDeps) -> StateGraph[TextState, None, TextInput, TextOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer."""

    async def prepare(state: TextState) -> dict[str, Any]:
        text = required_text(state, "text")
        optional_text(state, "query")
        check_length(text, deps)
        return await asyncio.to_thread(_measured, text)

    async def analyse(state: TextState) -> dict[str, Any]:
        query = optional_text(state, "query")
        prompt = f"{query or DEFAULT_QUERY}\n{fence(state['text'])}"
        system = instructions(config.system_prompt or SYSTEM_PROMPT)
        asked = await asking(model, deps.toolbox)
        return said(
            deps.toolbox, await asked.ainvoke([system, HumanMessage(prompt), *(state.get("conversation") or ())])
        )

    async def report(state: TextState) -> dict[str, Any]:
        reply = state["reply"]
        analysis = local_analysis(reply)
        return {
            "answer": reply.text,
            "summary": str(analysis.get("summary", reply.text)) if analysis else reply.text,
            "offline": analysis is not None,
            "notice": notice_of(reply),
        }

    graph = StateGraph(TextState, input_schema=TextInput, output_schema=TextOutput)
    graph.add_node("prepare", prepare)
    graph.add_node("analyse", analyse)
    graph.add_node("report", report)
    graph.add_edge(START, "prepare")
    graph.add_edge("prepare", "analyse")
    add_tools(graph, "analyse", "report", deps.toolbox, "text")
    add_structure(graph, "report", "answer", config, model, deps)
    return graph


def _measured(text: str) -> dict[str, Any]:
    """The facts about the text that don't depend on the model."""
    sentences = split_sentences(text)
    language = detect_language(text)
    return {
        "language": language,
        "key_phrases": key_phrases(text, sentences, language),
        "statistics": statistics(text, sentences),
    }
