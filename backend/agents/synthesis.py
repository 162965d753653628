"""The synthesis agent combines the results of several agents into one answer.

Nodes: combine → report, and then structure if there is an `output_schema`.
"""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph

from backend.agents.config import AgentConfig, AgentDeps, optional_text
from backend.agents.structured import add_structure
from backend.core.errors.input_error import InputError
from backend.models.prompts.document import fence, instructions
from backend.models.reply import Model, local_analysis, notice_of

SYSTEM_PROMPT = (
    "Several agents worked on the same request; each <text> element holds what the agent it is named after "
    "found. Combine their findings into one answer to the question: what they agree on, where they contradict "
    "each other, and what none of them could find. Add nothing of your own."
)
DEFAULT_QUERY = "Combine the findings."

MAX_FINDING_CHARS = 100_000
"""The most characters that one agent's result may add to the prompt. A longer one is cut, and marked as such."""


class SynthesisInput(TypedDict, total=False):
    """`results` has what each agent returned, by its name. `query` is the question, if there is one."""

    query: str | None
    results: dict[str, Any]


class SynthesisOutput(TypedDict, total=False):
    """`summary` combines the results of `sources`. `offline` and `notice` are those of the other agents.

    `data` is the summary in the form of the `output_schema`, if there is one.
    """

    summary: str
    sources: list[str]
    offline: bool
    notice: str | None
    data: dict[str, Any]


class SynthesisState(SynthesisInput, SynthesisOutput, total=False):
    """The graph's state. `reply` is the model's unmodified answer."""

    reply: AIMessage


def build(
    config: AgentConfig, model: Model, deps: AgentDeps
) -> StateGraph[SynthesisState, None, SynthesisInput, SynthesisOutput]:
    """Build the agent's graph. The caller compiles it, with a checkpointer."""

    async def combine(state: SynthesisState) -> dict[str, Any]:
        results = required_results(state)
        findings = "\n".join(fence(finding(result), name) for name, result in results.items())
        prompt = f"{optional_text(state, 'query') or DEFAULT_QUERY}\n{findings}"
        system = instructions(config.system_prompt or SYSTEM_PROMPT)
        return {"reply": await model.ainvoke([system, HumanMessage(prompt)]), "sources": list(results)}

    async def report(state: SynthesisState) -> dict[str, Any]:
        reply = state["reply"]
        analysis = local_analysis(reply)
        return {
            "summary": str(analysis.get("summary", reply.text)) if analysis else reply.text,
            "offline": analysis is not None,
            "notice": notice_of(reply),
        }

    graph = StateGraph(SynthesisState, input_schema=SynthesisInput, output_schema=SynthesisOutput)
    graph.add_node("combine", combine)
    graph.add_node("report", report)
    graph.add_edge(START, "combine")
    graph.add_edge("combine", "report")
    add_structure(graph, "report", "summary", config, model, deps)
    return graph


def required_results(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the agents' results. Raises `InputError` if there are none."""
    results = state.get("results")
    if not isinstance(results, dict) or not results:
        raise InputError("has to hold the result of at least one agent, by the agent's name", field="results")
    return results


def finding(result: Any) -> str:
    """An agent's result as text: its answer or summary, or else the whole result as JSON."""
    text = None
    if isinstance(result, dict):
        found = result.get("answer") or result.get("summary")
        if isinstance(found, str):
            # Every offline answer begins with the same notice, which is about the model and not a result.
            text = found.removeprefix(str(result.get("notice") or "")).strip()
    elif isinstance(result, str):
        text = result.strip()
    if not text:
        text = json.dumps(result, ensure_ascii=False, default=str)
    if len(text) > MAX_FINDING_CHARS:
        text = f"{text[:MAX_FINDING_CHARS]}\n[cut: {len(text)} characters]"
    return text
