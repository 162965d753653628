"""Several agents in one task: who runs when, who gets whose results, and what becomes of it all."""

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextvars import copy_context
from typing import Annotated, Any, Protocol, TypedDict

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph import END, START, StateGraph

from backend.agents.observer import Usage
from backend.agents.runner import AgentRunner, Outcome
from backend.agents.specs import SYNTHESIS, AgentSpec

_CONTEXT_LIMIT = 20_000


class TeamState(TypedDict):
    """The outcome of each agent by name."""

    outcomes: Annotated[dict[str, Outcome], lambda before, new: {**before, **new}]


class Node(Protocol):
    """A node of the team's graph."""

    def __call__(self, state: TeamState) -> Coroutine[Any, Any, dict[str, Any]]:
        """Run it."""
        ...


async def run_team(
    runner: AgentRunner, specs: list[AgentSpec], mode: str, *, synthesis: AgentSpec | None
) -> dict[str, Any]:
    """Run all agents; gives the task's XCom.

    In `parallel` all start at once; in `sequential` each gets the results before it. When a required agent fails,
    those that run already go on to their end, no other starts, and its error is raised. `synthesis`, if given, sums
    up the results.
    """
    members = [*specs, *([synthesis] if synthesis is not None else [])]
    asked = [[spec.name, spec.type, spec.input_data] for spec in members]
    threads = {spec.name: f"{runner.task.thread_id}/{spec.name}" for spec in members}
    await runner.claim(threads, [mode, asked, runner.task.run_input])
    # The team keeps no checkpoint of its own: an agent that came to its end gives its result again from its thread.
    graph = _graph(runner, specs, mode, synthesis).compile(name="team")
    state = await graph.ainvoke({"outcomes": {}}, {"recursion_limit": len(specs) + 10})
    outcomes: dict[str, Outcome] = state["outcomes"]
    if (failed := _fatal(specs, outcomes)) is not None:
        raise failed
    result = _result(specs, outcomes, synthesis)
    runner.keep_result(result)
    return result


def _graph(
    runner: AgentRunner, specs: list[AgentSpec], mode: str, synthesis: AgentSpec | None
) -> StateGraph[TeamState, None, TeamState, TeamState]:
    graph = StateGraph(TeamState)
    names = [f"agent_{index}" for index in range(len(specs))]  # an agent's own name may not be a node's
    for name, spec in zip(names, specs, strict=True):
        graph.add_node(name, _agent_node(runner, spec, specs, chained=mode == "sequential"))
    last = END
    if synthesis is not None:
        graph.add_node(SYNTHESIS, _synthesis_node(runner, synthesis, specs))
        graph.add_edge(SYNTHESIS, END)
        last = SYNTHESIS
    if mode == "sequential":
        for before, after in zip([START, *names], [*names, last], strict=True):
            graph.add_edge(before, after)
    else:
        for name in names:
            graph.add_edge(START, name)
        graph.add_edge(names, last)
    return graph


def _agent_node(runner: AgentRunner, spec: AgentSpec, specs: list[AgentSpec], *, chained: bool) -> Node:
    async def run(state: TeamState) -> dict[str, Any]:
        if _fatal(specs, state["outcomes"]) is not None:
            return {"outcomes": {}}
        given = dict(runner.task.run_input if spec.input_data is None else spec.input_data)
        if chained:
            given = _with_results(spec, given, _outputs(state["outcomes"]))
        return {"outcomes": {spec.name: await _alone(runner, spec, given)}}

    return run


def _synthesis_node(runner: AgentRunner, synthesis: AgentSpec, specs: list[AgentSpec]) -> Node:
    async def run(state: TeamState) -> dict[str, Any]:
        results = _outputs(state["outcomes"])
        if not results or _fatal(specs, state["outcomes"]) is not None:
            return {"outcomes": {}}
        given = {"query": runner.task.run_input.get("query"), "results": results}
        return {"outcomes": {synthesis.name: await _alone(runner, synthesis, given)}}

    return run


async def _alone(runner: AgentRunner, spec: AgentSpec, given: Mapping[str, Any]) -> Outcome:
    """Run an agent as a graph of its own: LangGraph would take it for a subgraph of the node that it is run in."""
    context = copy_context()
    context.run(var_child_runnable_config.set, None)
    return await asyncio.create_task(runner.run(spec, given), context=context)


def _with_results(spec: AgentSpec, given: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """The input of an agent that follows others: their results, in the form its kind can use."""
    if not results:
        return given
    given["results"] = {**results, **(given.get("results") or {})}
    if spec.type == "text" and not given.get("text"):
        given["text"] = "\n\n".join(_as_text(output) for output in results.values())
    elif spec.type == "vision":
        context = json.dumps(results, ensure_ascii=False)[:_CONTEXT_LIMIT]
        given["query"] = f"{given.get('query') or ''}\n\nWhat the agents before you found:\n{context}".strip()
    return given


def _as_text(output: Any) -> str:
    if isinstance(output, Mapping):
        for key in ("text", "summary", "answer"):
            if isinstance(output.get(key), str) and output[key].strip():
                return str(output[key])
    return json.dumps(output, ensure_ascii=False)


def _outputs(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    return {name: outcome.output for name, outcome in outcomes.items() if outcome.state == "success"}


def _fatal(specs: list[AgentSpec], outcomes: Mapping[str, Outcome]) -> Exception | None:
    for spec in specs:
        outcome = outcomes.get(spec.name)
        if spec.required and outcome is not None and outcome.error is not None:
            return outcome.error
    return None


def _result(specs: list[AgentSpec], outcomes: Mapping[str, Outcome], synthesis: AgentSpec | None) -> dict[str, Any]:
    total = Usage()
    for outcome in outcomes.values():
        total.input_tokens += outcome.usage.input_tokens
        total.output_tokens += outcome.usage.output_tokens
        total.calls += outcome.usage.calls
        if outcome.usage.calls:
            known = total.cost is not None and outcome.usage.cost is not None
            total.cost = total.cost + outcome.usage.cost if known else None  # type: ignore[operator]  # both are known
    summed_up = outcomes.get(synthesis.name) if synthesis is not None else None
    summary = summed_up.output.get("summary") if summed_up is not None and summed_up.output else None
    return {
        "results": {spec.name: outcomes[spec.name].output for spec in specs if spec.name in outcomes},
        "summary": summary,
        "agents": {name: _agent_json(outcome) for name, outcome in outcomes.items()},
        "usage": {"input_tokens": total.input_tokens, "output_tokens": total.output_tokens},
        "cost_usd": total.cost_usd,
    }


def _agent_json(outcome: Outcome) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "state": outcome.state,
        "model": outcome.model,
        "usage": outcome.usage_json(),
        "cost_usd": outcome.usage.cost_usd,
        "trace_id": outcome.trace_id,
    }
    if outcome.notice:
        entry["notice"] = outcome.notice
    if outcome.error is not None:
        from backend.core.redaction import redact_text

        entry["error"] = redact_text(str(outcome.error), limit=2_000)
    return entry
