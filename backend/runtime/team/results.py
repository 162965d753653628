"""What the agents of a team pass to each other."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextvars import copy_context
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from backend.core.workflow_error_handler import AgentFailure
from backend.models.prompts.document import fence
from backend.runtime.runner import AgentOutcome, AgentRunner
from backend.runtime.specs import AgentSpec

Outcomes = dict[str, AgentOutcome]
"""The outcome of each agent, by its name."""

_CONTEXT_LIMIT = 20_000


async def run_alone(runner: AgentRunner, spec: AgentSpec, input_data: Any, *, call: int = 1) -> AgentOutcome:
    """Run an agent as a graph of its own. Otherwise LangGraph would take it for a subgraph of the running node."""
    context = copy_context()
    context.run(var_child_runnable_config.set, None)
    return await asyncio.create_task(runner.run(spec, input_data, call=call), context=context)


def input_of(runner: AgentRunner, spec: AgentSpec, results: Mapping[str, Any]) -> Any:
    """An agent's own input or the run's, with the results of earlier agents in a form that its type can use.

    A graph whose input is no dict gets that alone: there is no place in it for results.
    """
    given = runner.task.run_input if spec.input_data is None else spec.input_data
    if not isinstance(given, Mapping):
        return given
    input_data = dict(given)
    if not results:
        return input_data
    input_data["results"] = {**results, **(input_data.get("results") or {})}
    reads_picture = spec.type == "vision" or (spec.type == "extraction" and input_data.get("image_url"))
    if spec.type in ("text", "extraction") and not input_data.get("text") and not reads_picture:
        input_data["text"] = "\n\n".join(_as_text(output) for output in results.values())
    elif reads_picture:
        context = fence(json.dumps(results, ensure_ascii=False)[:_CONTEXT_LIMIT])
        input_data["query"] = with_more(input_data.get("query"), f"What the agents before you found:\n{context}")
    return input_data


def with_more(query: Any, more: str) -> str:
    """A question, followed by more information."""
    return f"{query or ''}\n\n{more}".strip()


def outputs(specs: Iterable[AgentSpec], outcomes: Mapping[str, AgentOutcome]) -> dict[str, Any]:
    """The outputs of those of the agents that have one."""
    ended = ((spec.name, outcomes.get(spec.name)) for spec in specs)
    return {name: outcome.output for name, outcome in ended if outcome is not None and outcome.output is not None}


def fatal_error(specs: Iterable[AgentSpec], outcomes: Mapping[str, AgentOutcome]) -> AgentFailure | None:
    """The failure of the first required agent that failed."""
    for spec in specs:
        outcome = outcomes.get(spec.name)
        if spec.required and outcome is not None and outcome.error is not None:
            return outcome.error
    return None


def _as_text(output: Any) -> str:
    if isinstance(output, Mapping):
        for key in ("text", "summary", "answer"):
            if isinstance(output.get(key), str) and output[key].strip():
                return str(output[key])
    return json.dumps(output, ensure_ascii=False)
