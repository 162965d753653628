"""The built-in agents by name. Light to import: a graph's module is loaded when the graph is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from backend.agents.agent_config import AgentConfig, AgentDeps
from backend.agents.models import Purpose
from backend.core.input_error import InputError

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from backend.agents.model_reply import Model


class UnknownAgentError(InputError):
    """No built-in agent has this name. A retry doesn't help."""

    field = "agent_config"


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """A built-in agent: what kind of model it needs, what input it can't do without, and where its graph is."""

    type: str
    purpose: Purpose
    required: tuple[str, ...]
    module: str

    def check_input(self, input_data: Mapping[str, Any]) -> None:
        """Raise `InputError` naming the first required field that is missing or blank."""
        for name in self.required:
            value = input_data.get(name)
            if value is None or (isinstance(value, str | dict) and not str(value).strip("{} \t\r\n")):
                state = "missing" if name not in input_data else "blank"
                raise InputError(f"is {state}; the {self.type} agent needs it", field=name)

    def build(self, config: AgentConfig | Mapping[str, Any], model: "Model", deps: AgentDeps) -> "StateGraph[Any]":
        """The agent's graph, ready to be compiled. Raises `AgentConfigError` for a wrong `config`.

        The temperature and the token limit of `config` are the model's: give `AgentConfig.model_params()` to
        `build_model`.
        """
        parsed = config if isinstance(config, AgentConfig) else AgentConfig.parse(config)
        graph: StateGraph[Any] = import_module(self.module).build(parsed, model, deps)
        return graph


AGENTS = {
    agent.type: agent
    for agent in (
        AgentDefinition("vision", "vision", ("image_url",), "backend.agents.vision"),
        AgentDefinition("text", "text", ("text",), "backend.agents.text"),
        AgentDefinition("synthesis", "text", ("results",), "backend.agents.synthesis"),
    )
}


def get_agent(name: str) -> AgentDefinition:
    """The agent of that name. Raises `UnknownAgentError`, which lists the names there are."""
    try:
        return AGENTS[name]
    except KeyError:
        raise UnknownAgentError(f"there is no agent “{name}”; built in are {', '.join(AGENTS)}") from None
