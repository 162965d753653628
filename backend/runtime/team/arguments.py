"""All that says what a team of agents is to do, parsed together. Light to import: DAG files pay for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.runtime.specs import SUPERVISOR, AgentSpec, parse_max_steps, parse_supervisor, parse_team, synthesis_spec

TEAM_ARGUMENTS = ("agents", "orchestration_mode", "synthesis", "supervisor", "max_steps", "error_policy")
"""What `MultiAgentOperator` takes of a team, and a run of `multi_agent_workflow` may bring."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who works, in which mode, who leads and who sums up; `max_steps` counts only in the mode `supervisor`."""

    specs: list[AgentSpec]
    mode: str
    synthesis: AgentSpec | None
    supervisor: AgentSpec
    max_steps: int


def parse_team_arguments(arguments: Mapping[str, Any], *, model: Any = None) -> Team:
    """The team of rendered arguments; what is missing is as `MultiAgentOperator` has it.

    Raises `InputError` naming the argument that is wrong.
    """
    policy = arguments.get("error_policy")
    mode = arguments.get("orchestration_mode")
    mode = "parallel" if mode is None else mode
    specs = parse_team(arguments.get("agents"), mode, model=model, error_policy=policy)
    synthesis = arguments.get("synthesis")
    return Team(
        specs=specs,
        mode=mode,
        synthesis=synthesis_spec(True if synthesis is None else synthesis, specs, model, policy),
        supervisor=parse_supervisor(arguments.get("supervisor"), model=model, error_policy=policy),
        # The mode may be another one now that it is known; then this has no meaning.
        max_steps=parse_max_steps(arguments.get("max_steps"), SUPERVISOR, agents=len(specs)),
    )
