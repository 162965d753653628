"""Several agents in one task: what they are asked, and what becomes of it all.

Who runs when is the business of `team_order` (parallel, sequential, graph) and `team_supervisor`.
"""

from collections.abc import Iterable
from typing import Any

from backend.core.redaction import redact_text
from backend.models.usage import Usage
from backend.runtime.runner import AgentOutcome, AgentRunner
from backend.runtime.specs import SUPERVISOR, AgentSpec, parse_max_steps, parse_supervisor
from backend.runtime.team.modes import run_in_order
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
    """Run all agents; gives the task's XCom.

    In `parallel` all start at once; in `sequential` each gets the results before it; in `graph` each gets the results
    of those it depends on, as soon as they are there; in `supervisor` the agent `supervisor` picks who works next, with
    at most `max_steps` calls of agents (None: the default). When a required agent fails, those that run already go on
    to their end, no other starts, and its error is raised. `synthesis`, if given, sums up the results.
    """
    lead = (supervisor or parse_supervisor(None)) if mode == SUPERVISOR else None
    steps = parse_max_steps(max_steps, mode, agents=len(specs)) if lead is not None else 0
    members = [*specs, *(spec for spec in (lead, synthesis) if spec is not None)]
    threads = {spec.name: f"{runner.task.thread_id}/{spec.name}" for spec in members}
    # A supervisor decides once more than agents are called, when it says that the work is done.
    await runner.claim(threads, [mode, _asked(members), runner.task.run_input], calls=steps + 1)
    await runner.begin_trace(members)
    # The team keeps no checkpoint of its own: each call of an agent and each decision of a supervisor has a thread, and
    # one that came to its end gives its result again. So a retry goes the same way to where the try before it stopped.
    decisions: list[dict[str, Any]] | None = None
    if lead is None:
        outcomes = await run_in_order(runner, specs, mode)
    else:
        outcomes, decisions = await run_supervised(runner, specs, lead, steps)
    if (failed := fatal_error(members, outcomes)) is not None:
        raise failed
    if synthesis is not None and (results := outputs(specs, outcomes)):
        given = {"query": runner.task.run_input.get("query"), "results": results}
        outcomes[synthesis.name] = await runner.run(synthesis, given)
    result = {**_result(specs, outcomes, synthesis), "trace_id": runner.trace.id, "trace_url": runner.trace.url}
    if decisions is not None:
        result["decisions"] = decisions
    runner.keep_result(result)
    return result


def _asked(members: Iterable[AgentSpec]) -> list[Any]:
    return [
        [spec.name, spec.type, spec.input_data, spec.depends_on, spec.config.get("output_schema")] for spec in members
    ]


def _result(specs: list[AgentSpec], outcomes: Outcomes, synthesis: AgentSpec | None) -> dict[str, Any]:
    total = Usage.sum(outcome.usage for outcome in outcomes.values())
    summed_up = outcomes.get(synthesis.name) if synthesis is not None else None
    summary = summed_up.output.get("summary") if summed_up is not None and summed_up.output else None
    return {
        "results": {spec.name: outcomes[spec.name].output for spec in specs if spec.name in outcomes},
        "summary": summary,
        "agents": {name: _agent_json(outcome) for name, outcome in outcomes.items()},
        "usage": {"input_tokens": total.input_tokens, "output_tokens": total.output_tokens},
        "cost_usd": total.cost_usd,
    }


def _agent_json(outcome: AgentOutcome) -> dict[str, Any]:
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
        entry["error"] = redact_text(str(outcome.error), limit=2_000)
    return entry
