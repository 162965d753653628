"""Runs several agents in one task, and puts the task's result together.

Which agent runs when depends on the mode: in `parallel`, `sequential` and `graph` it is known beforehand (`modes`), in
`supervisor` a model decides (`supervised`). Either way, each agent runs as a graph of its own, so its nodes, tokens and
checkpoints are its own, whatever runs at the same time.

The team itself keeps no checkpoint. Instead, each call of an agent and each decision of the supervisor has a thread of
its own: `<task's thread>/<agent>` for the first call, `…/<agent>/2` for the second. A call that succeeded returns the
same result again without calling a model, so a retry takes the same path to where the try before it stopped, and goes
on from there. That is why a team's threads are claimed together, with a digest of everything that the agents are asked.
"""

from collections.abc import Iterable
from typing import Any

from backend.core.redaction import redact_text
from backend.core.run_envelope import Fork
from backend.models.usage import Usage
from backend.runtime.forking import forked_task
from backend.runtime.runner import AgentOutcome, AgentRunner
from backend.runtime.specs import SUPERVISOR, AgentSpec, parse_max_steps, parse_supervisor
from backend.runtime.team.modes import run_in_order, waits_for
from backend.runtime.team.results import Outcomes, fatal_error, outputs
from backend.runtime.team.supervised import run_supervised


async def run_team(
    runner: AgentRunner,
    specs: list[AgentSpec],
    mode: str,
    *,
    synthesis: AgentSpec | None,
    supervisor: AgentSpec | None = None,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """Run all agents; returns the task's XCom.

    In `parallel` all agents start at once. In `sequential` each receives the results of those before it. In `graph`
    each receives the results of the agents it depends on, as soon as these have ended. In `supervisor` the agent
    `supervisor` picks the next agent, with at most `max_steps` calls of agents (None: the default).

    When a required agent fails, running agents come to their end, no other one starts, and its recorded `AgentFailure`
    is raised. When agents wait for people, all others that can work come to their end, and `AgentsWaiting` is raised.
    Raises `StepLimitError` when a supervisor needs more than `max_steps` calls. The agent `synthesis`, if
    there is one, summarizes the results.
    """
    lead = (supervisor or parse_supervisor(None)) if mode == SUPERVISOR else None
    steps = parse_max_steps(max_steps, mode, agents=len(specs)) if lead is not None else 0
    members = [*specs, *(spec for spec in (lead, synthesis) if spec is not None)]
    threads = {spec.name: f"{runner.task.thread_id}/{spec.name}" for spec in members}
    # A supervisor makes one decision more than there are calls: the one that ends the work.
    request = [mode, _asked(members), runner.task.run_input]
    await runner.claim(threads, request, calls=steps + 1, unaffected=_unaffected(specs, mode, forked_task(runner.task)))
    await runner.begin_trace(members)
    decisions: list[dict[str, Any]] | None = None
    if lead is None:
        outcomes = await run_in_order(runner, specs, mode)
    else:
        outcomes, decisions = await run_supervised(runner, specs, lead, steps)
    if (failed := fatal_error(members, outcomes)) is not None:
        raise failed
    await runner.ask(outcomes.values())
    if synthesis is not None and (results := outputs(specs, outcomes)):
        input_data = {"query": runner.task.run_input.get("query"), "results": results}
        outcomes[synthesis.name] = await runner.run(synthesis, input_data)
    result = {**_result(specs, outcomes, synthesis), "trace_id": runner.trace.id, "trace_url": runner.trace.url}
    if decisions is not None:
        result["decisions"] = decisions
    runner.keep_result(result)
    return result


def _unaffected(specs: list[AgentSpec], mode: str, fork: Fork | None) -> list[str] | None:
    """The agents that don't get the result of the one that was forked; None if that is not known beforehand."""
    if fork is None or fork.agent is None:
        return []
    if mode == SUPERVISOR:
        return None
    affected = {fork.agent}
    if mode != "parallel":
        before = waits_for(specs, mode)
        for _ in specs:
            affected |= {name for name, others in before.items() if affected & {one.name for one in others}}
    return [spec.name for spec in specs if spec.name not in affected]


def _asked(members: Iterable[AgentSpec]) -> list[Any]:
    return [
        [spec.name, spec.type, spec.input_data, spec.depends_on, spec.config.get("output_schema")] for spec in members
    ]


def _result(specs: list[AgentSpec], outcomes: Outcomes, synthesis: AgentSpec | None) -> dict[str, Any]:
    total = Usage.sum(outcome.usage for outcome in outcomes.values())
    summed_up = outcomes.get(synthesis.name) if synthesis is not None else None
    summary = summed_up.output.get("summary") if summed_up is not None and summed_up.output else None
    described = {spec.name: spec.description for spec in specs}
    result = {
        "results": {spec.name: outcomes[spec.name].output for spec in specs if spec.name in outcomes},
        "summary": summary,
        "agents": {name: _agent_json(outcome, described.get(name)) for name, outcome in outcomes.items()},
        "usage": {"input_tokens": total.input_tokens, "output_tokens": total.output_tokens},
        "cost_usd": total.cost_usd,
    }
    if synthesis is not None and synthesis.config.get("output_schema") is not None:
        result["data"] = summed_up.output.get("data") if summed_up is not None and summed_up.output else None
    return result


def _agent_json(outcome: AgentOutcome, description: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "state": outcome.state,
        "model": outcome.model,
        "usage": outcome.usage_json(),
        "cost_usd": outcome.usage.cost_usd,
        "trace_id": outcome.trace_id,
    }
    if description:
        entry["description"] = description
    if outcome.notice:
        entry["notice"] = outcome.notice
    if outcome.error is not None:
        entry["error"] = redact_text(str(outcome.error), limit=2_000)
    return entry
