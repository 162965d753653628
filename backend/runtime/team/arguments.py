"""The arguments that describe a team of agents, parsed together. Light to import, because DAG files import it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.runtime.specs import SUPERVISOR, AgentSpec, parse_max_steps, parse_supervisor, parse_team, synthesis_spec

TEAM_ARGUMENTS = ("agents", "orchestration_mode", "synthesis", "supervisor", "max_steps", "error_policy")
"""The arguments of `MultiAgentOperator` that describe its team; a run of `multi_agent_workflow` may pass them too."""


@dataclass(frozen=True, slots=True)
class Team:
    """The agents, their mode, the supervisor and the summarizing agent. `max_steps` is for the mode `supervisor`."""

    specs: list[AgentSpec]
    mode: str
    synthesis: AgentSpec | None
    supervisor: AgentSpec
    max_steps: int


def parse_team_arguments(arguments: Mapping[str, Any], *, model: Any = None) -> Team:
    """Parse rendered arguments. Missing ones have the defaults of `MultiAgentOperator`.

    Raises `InputError` naming the invalid argument.
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
        # When the mode was a template, it may turn out to be one that has no use for this.
        max_steps=parse_max_steps(arguments.get("max_steps"), SUPERVISOR, agents=len(specs)),
    )
