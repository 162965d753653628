"""The mode in which a model picks the next agent."""

import operator
from collections.abc import Coroutine
from dataclasses import replace
from typing import Annotated, Any, Protocol, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from backend.agents.registry import AGENTS
from backend.agents.supervisor_choice import FINISH
from backend.core.errors.agent_errors import StepLimitError
from backend.core.redaction import redact_text
from backend.models.usage import Usage
from backend.runtime.runner import AgentOutcome, AgentRunner
from backend.runtime.specs import AgentSpec
from backend.runtime.team.results import Outcomes, fatal_error, input_of, outputs, run_alone, with_more

_SUPERVISE = "supervise"


class Supervised(TypedDict):
    """The supervisor's decisions in order, and each call's outcome with the agent's name."""

    decisions: Annotated[list[dict[str, Any]], operator.add]
    calls: Annotated[list[tuple[str, AgentOutcome]], operator.add]


class Node(Protocol):
    """A node of the team's graph."""

    def __call__(self, state: Supervised) -> Coroutine[Any, Any, Command[str]]: ...


async def run_supervised(
    runner: AgentRunner, specs: list[AgentSpec], supervisor: AgentSpec, max_steps: int
) -> tuple[Outcomes, list[dict[str, Any]]]:
    """Let the supervisor pick agents until it finishes; returns each agent's outcome, and the decisions.

    An agent may be called several times. Its outcome has the latest output, the state of the last call and the usage of
    all calls. An agent receives all results so far and, at the end of its `query`, the supervisor's instruction. Raises
    `StepLimitError` when the supervisor asks for another call after `max_steps` of them.
    """
    nodes = {spec.name: f"agent_{index}" for index, spec in enumerate(specs)}  # names needn't be valid for nodes
    graph: StateGraph[Supervised, None, Supervised, Supervised] = StateGraph(Supervised)
    graph.add_node(
        _SUPERVISE,
        _supervisor_node(runner, specs, supervisor, max_steps, nodes),
        destinations=(*nodes.values(), END),
    )
    for spec in specs:
        graph.add_node(nodes[spec.name], _agent_node(runner, spec, specs), destinations=(_SUPERVISE, END))
    graph.add_edge(START, _SUPERVISE)
    state = await graph.compile(name="team").ainvoke(
        {"decisions": [], "calls": []}, {"recursion_limit": 2 * max_steps + 10}
    )
    return _ended(state["calls"]), state["decisions"]


def _supervisor_node(
    runner: AgentRunner, specs: list[AgentSpec], supervisor: AgentSpec, max_steps: int, nodes: dict[str, str]
) -> Node:
    team = {spec.name: spec.description or getattr(AGENTS.get(spec.type), "description", "") for spec in specs}

    async def supervise(state: Supervised) -> Command[str]:
        worked = [name for name, _ in state["calls"] if name in team]
        outcomes = _ended(state["calls"])
        failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.error is not None}
        input_data = {
            "query": runner.task.run_input.get("query"),
            "agents": team,
            "results": outputs(specs, outcomes),
            "errors": {name: redact_text(str(error), limit=2_000) for name, error in failed.items()},
            "called": worked,
            "steps_left": max_steps - len(worked),
        }
        outcome = await run_alone(runner, supervisor, input_data, call=len(state["decisions"]) + 1)
        calls = [(supervisor.name, outcome)]
        if outcome.error is not None:
            return Command(goto=END, update={"calls": calls})
        # The supervisor's output isn't among the team's results, so its notice has to be kept elsewhere.
        notices = dict.fromkeys(notice for notice in (outcome.notice, outcome.output.get("notice")) if notice)
        calls = [(supervisor.name, replace(outcome, notice="; ".join(notices) or None))]
        decision = {key: outcome.output[key] for key in ("next", "instruction", "reason")}
        if decision["next"] != FINISH and len(worked) >= max_steps:
            raise StepLimitError(
                f"the supervisor has used up its {max_steps} calls and asks for {decision['next']!r} next; raise "
                "max_steps, or give it a request that the agents can answer"
            )
        goto = END if decision["next"] == FINISH else nodes[decision["next"]]
        return Command(goto=goto, update={"calls": calls, "decisions": [decision]})

    return supervise


def _agent_node(runner: AgentRunner, spec: AgentSpec, specs: list[AgentSpec]) -> Node:
    async def work(state: Supervised) -> Command[str]:
        input_data = input_of(runner, spec, outputs(specs, _ended(state["calls"])))
        instruction = state["decisions"][-1]["instruction"]
        if instruction:
            input_data["query"] = with_more(input_data.get("query"), instruction)
        call = 1 + sum(name == spec.name for name, _ in state["calls"])
        outcome = await run_alone(runner, spec, input_data, call=call)
        ends = outcome.questions or fatal_error([spec], {spec.name: outcome}) is not None
        goto = END if ends else _SUPERVISE
        return Command(goto=goto, update={"calls": [(spec.name, outcome)]})

    return work


def _ended(calls: list[tuple[str, AgentOutcome]]) -> Outcomes:
    """The outcome of each agent, from all of its calls."""
    ended: Outcomes = {}
    for name, outcome in calls:
        before = ended.get(name)
        if before is not None:
            output = before.output if outcome.output is None else outcome.output
            outcome = replace(outcome, output=output, usage=Usage.sum([before.usage, outcome.usage]))
        ended[name] = outcome
    return ended
