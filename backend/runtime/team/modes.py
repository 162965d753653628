"""The modes whose order is known beforehand: parallel, sequential and graph."""

import asyncio

from langgraph.func import entrypoint, task

from backend.runtime.runner import AgentOutcome, AgentRunner
from backend.runtime.specs import AgentSpec
from backend.runtime.team.results import Outcomes, fatal_error, input_of, outputs, run_alone


async def run_in_order(runner: AgentRunner, specs: list[AgentSpec], mode: str) -> Outcomes:
    """Run each agent as soon as the agents it depends on have ended; returns the outcome of each.

    An agent receives the results of the agents it depends on. Once a required agent has failed, no other one starts.
    Those that didn't start are missing from the outcomes; in the mode `graph`, where the order doesn't show which ones
    these are, they are recorded as skipped. Neither does one that depends on an agent that waits for people.

    The agents are tasks of LangGraph's functional API. Nodes of a `StateGraph` would run in steps, and an agent whose
    own dependencies have ended would wait for the slowest agent of the step before.
    """
    before = waits_for(specs, mode)

    @task
    async def work(spec: AgentSpec, outcomes: Outcomes) -> AgentOutcome:
        input_data = input_of(runner, spec, outputs(before[spec.name], outcomes))
        return await run_alone(runner, spec, input_data)

    @entrypoint()
    async def team(outcomes: Outcomes) -> Outcomes:
        ended = {spec.name: asyncio.Event() for spec in specs}
        waiting: set[str] = set()  # for people, or for agents that do

        async def follow(spec: AgentSpec) -> None:
            for one in before[spec.name]:
                await ended[one.name].wait()
            if not waiting.isdisjoint(one.name for one in before[spec.name]):
                waiting.add(spec.name)
            elif fatal_error(specs, outcomes) is None:
                outcomes[spec.name] = await work(spec, outcomes)
                if outcomes[spec.name].questions:
                    waiting.add(spec.name)
            elif mode == "graph":
                runner.skip(spec, "skipped: a required agent failed")
            ended[spec.name].set()

        async with asyncio.TaskGroup() as group:
            for spec in specs:
                group.create_task(follow(spec))
        return outcomes

    outcomes: Outcomes = await team.ainvoke({})
    return {spec.name: outcomes[spec.name] for spec in specs if spec.name in outcomes}


def waits_for(specs: list[AgentSpec], mode: str) -> dict[str, list[AgentSpec]]:
    """The agents that each agent depends on, and whose results it receives."""
    if mode == "sequential":
        return {spec.name: specs[:index] for index, spec in enumerate(specs)}
    if mode == "graph":
        return {spec.name: [one for one in specs if one.name in spec.depends_on] for spec in specs}
    return {spec.name: [] for spec in specs}
