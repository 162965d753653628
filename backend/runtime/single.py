"""Runs the one agent of a task, which may be a turn of a conversation."""

from typing import Any

from backend.runtime.runner import AgentRunner
from backend.runtime.specs import AgentSpec
from backend.runtime.turns.begin import turn_of
from backend.runtime.turns.work import turn_spec


async def run_single(runner: AgentRunner, spec: AgentSpec) -> dict[str, Any]:
    """Run the one agent of a task; returns the task's XCom.

    Raises the agent's `AgentFailure`, which is recorded, and `AgentsWaiting`.
    """
    turn = turn_of(runner.task, spec)
    spec = turn_spec(spec, turn, runner.task)
    input_data = runner.task.run_input if spec.input_data is None and turn is None else spec.input_data
    thread = runner.task.thread_id if turn is None else turn.conversation
    asked = [spec.type, input_data, spec.config.get("output_schema")]
    await runner.claim({spec.name: thread}, asked, turn=turn)
    await runner.begin_trace([spec])
    outcome = await runner.run(spec, input_data)
    while runner.live is not None and outcome.questions and await runner.soon_answered(outcome.questions):
        outcome = await runner.run(spec, input_data)
    if outcome.error is not None:
        raise outcome.error
    await runner.ask([outcome])
    result = {
        "output": outcome.output,
        "agent": spec.name,
        "model": outcome.model,
        "usage": outcome.usage_json(),
        "cost_usd": outcome.usage.cost_usd,
        "trace_id": outcome.trace_id,
        "trace_url": runner.trace.url,
        "attempts": runner.task.try_number,
        "notice": outcome.notice,
    }
    runner.keep_result(result)
    return result
