"""The built-in agents by name. Importing this is cheap: a graph's module is loaded when the graph is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from backend.agents.config import AgentConfig, AgentDeps
from backend.core.errors.input_error import InputError
from backend.models.resolve import Purpose

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from backend.models.reply import Model


class UnknownAgentError(InputError):
    """No built-in agent has this name. A retry doesn't help."""

    field = "agent_config"


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """A built-in agent: the kind of model it needs, its required input, and the module of its graph.

    An entry of `required` is a tuple of names where one of several fields is enough. `schema` says whether the agent
    takes an `output_schema`; `blank_allowed` says that required fields may be blank. `description` tells a supervisor
    what the agent is for. `tools` says whether it may have tools.
    """

    type: str
    purpose: Purpose
    required: tuple[str | tuple[str, ...], ...]
    module: str
    description: str
    schema: Literal["optional", "required", "none"] = "optional"
    blank_allowed: bool = False
    tools: bool = False

    def check_input(self, input_data: Mapping[str, Any]) -> None:
        """Raise `InputError` that names the first required field which is missing or blank."""
        for names in self._requirements():
            values = [input_data.get(name) for name in names]
            if all(value is None if self.blank_allowed else _is_blank(value) for value in values):
                state = "blank" if any(name in input_data for name in names) else "missing"
                others = "".join(f", or {name}" for name in names[1:])
                raise InputError(f"is {state}; the {self.type} agent needs it{others}", field=names[0])

    def lacks(self, input_data: Mapping[str, Any]) -> str | None:
        """The first required field that is missing altogether, such as "text or image_url"."""
        for names in self._requirements():
            if not any(name in input_data for name in names):
                return " or ".join(names)
        return None

    def purpose_for(self, input_data: Mapping[str, Any]) -> Purpose:
        """The kind of model that this input needs: no vision if an agent that can do without a picture has none."""
        needs_picture = "image_url" in self.required or not _is_blank(input_data.get("image_url"))
        return self.purpose if needs_picture else "text"

    def _requirements(self) -> list[tuple[str, ...]]:
        return [(names,) if isinstance(names, str) else names for names in self.required]

    def build(self, config: AgentConfig | Mapping[str, Any], model: "Model", deps: AgentDeps) -> "StateGraph[Any]":
        """Build the agent's graph, ready to be compiled. Raises `AgentConfigError` if `config` is invalid.

        The temperature and the token limit in `config` apply to the model: pass `AgentConfig.model_params()` to
        `build_model`.
        """
        parsed = config if isinstance(config, AgentConfig) else AgentConfig.parse(config)
        graph: StateGraph[Any] = import_module(self.module).build(parsed, model, deps)
        return graph


AGENTS = {
    agent.type: agent
    for agent in (
        AgentDefinition(
            "vision", "vision", ("image_url",), "backend.agents.vision", "answers from its picture", tools=True
        ),
        AgentDefinition(
            "text", "text", ("text",), "backend.agents.text", "answers from its text, or from the results", tools=True
        ),
        AgentDefinition(
            "extraction", "vision", (("text", "image_url"),), "backend.agents.extraction", "fills a form", "required"
        ),
        AgentDefinition("synthesis", "text", ("results",), "backend.agents.synthesis", "sums up the results so far"),
        AgentDefinition(
            "review",
            "text",
            (("subject", "text", "results"),),
            "backend.agents.review",
            "judges the results so far",
            "none",
            blank_allowed=True,
        ),
        AgentDefinition("supervisor", "text", ("agents",), "backend.agents.supervisor", "picks an agent", "none"),
    )
}


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str | dict) and not str(value).strip("{} \t\r\n"))


def get_agent(name: str) -> AgentDefinition:
    """The agent of that name. Raises `UnknownAgentError`, which lists the known names."""
    try:
        return AGENTS[name]
    except KeyError:
        raise UnknownAgentError(f"there is no agent “{name}”; built in are {', '.join(AGENTS)}") from None
