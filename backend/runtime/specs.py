"""The specs of a task's agents, checked as early as possible. Light to import, because DAG files import it.

`spec_keys` says which key has an effect in which place, `spec_values` which values it may have.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args

from backend.agents.supervisor_choice import FINISH
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import FIELD as ERROR_POLICY
from backend.runtime import spec_values as values
from backend.runtime.spec_keys import AGENT_KEYS, check_graph_policy, check_keys, refusal
from backend.runtime.spec_values import is_later, is_template

Mode = Literal["parallel", "sequential", "graph", "supervisor"]
MODES: tuple[str, ...] = get_args(Mode)

SYNTHESIS = "synthesis"
SUPERVISOR = "supervisor"

MAX_STEPS = 200


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent of a task.

    `input_data` None stands for the run's own input; it is a dict, or for a graph any JSON. `timeout` is in seconds. A
    `required` agent that fails makes the task fail. `output_mapping` picks parts of its output. `graph` names a user's
    own graph, whose `type` is `graph`; `context` and `run_config` (parts of LangGraph's `RunnableConfig`) are passed to
    it, and `thread` names the conversation in which it takes turns. `depends_on` names the agents whose results it
    receives in the mode `graph`, and `description` explains its purpose to a supervisor. `error_policy` overrides parts
    of the settings'.
    """

    name: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    input_data: Any = None
    model: str | None = None
    required: bool = True
    timeout: float | None = None
    graph: str | None = None
    context: dict[str, Any] | None = None
    run_config: dict[str, Any] = field(default_factory=dict)
    thread: str | None = None
    output_mapping: dict[str, str] | None = None
    depends_on: tuple[str, ...] = ()
    description: str | None = None
    error_policy: dict[str, Any] | None = None


def parse_agent(
    agent_config: Any,
    input_data: Any,
    *,
    model: Any = None,
    timeout: Any = None,
    graph: Any = None,
    context: Any = None,
    configurable: Any = None,
    config: Any = None,
    thread: Any = None,
    output_mapping: Any = None,
    output_schema: Any = None,
    error_policy: Any = None,
) -> AgentSpec:
    """The agent of a `LangGraphOperator`: its `agent_config`, and the arguments beside it, which mean the same as keys.

    A value may stand in either place, or in both if it is the same; an `error_policy` takes precedence over the key,
    category by category. Raises `InputError` naming the argument or the key.
    """
    if agent_config is None and graph is None:
        raise InputError(
            "is missing; give agent_config={'type': …} or graph='package.module:attribute'", field="agent_config"
        )
    own = {} if agent_config is None else dict(values.mapping(agent_config, "agent_config"))
    arguments = {
        "input_data": input_data,
        "model": model,
        "timeout": timeout,
        "graph": graph,
        "context": context,
        "configurable": configurable,
        "config": config,
        "thread": thread,
        "output_mapping": output_mapping,
        "output_schema": output_schema,
    }
    beside = {key: value for key, value in arguments.items() if value is not None}
    for key, value in beside.items():
        if own.get(key) not in (None, "") and not _same(key, own[key], value):
            raise InputError("is another one than that of agent_config; give it once", field=key)
    fields = {**own, **beside}

    def at(key: str) -> str:
        return key if key in beside else f"agent_config.{key}"

    check_keys(fields, "alone", "agent_config", at)
    if fields.get("name") is not None:
        values.check_agent_name(fields["name"], (), (), at("name"))
    spec = _spec(fields, "agent_config", at)
    policy = values.policy(error_policy, ERROR_POLICY)
    if spec.graph is not None:
        check_graph_policy(policy, ERROR_POLICY)
    return replace(spec, error_policy=values.both_policies(spec.error_policy, policy))


def parse_team(agents: Any, mode: Any, *, model: Any = None, error_policy: Any = None) -> list[AgentSpec]:
    """The agents of a `MultiAgentOperator`, in order. Raises `InputError` naming the argument and the entry.

    An entry takes precedence over the team's `model` and `error_policy`. If the mode is a template, whatever depends on
    it is checked when the task runs.
    """
    if mode not in MODES and not is_template(mode):
        raise InputError(f"is {mode!r}; it has to be one of {', '.join(MODES)}", field="orchestration_mode")
    if isinstance(agents, str | Mapping) or not isinstance(agents, Sequence):
        raise InputError("has to be a list of agents", field="agents")
    if not agents:
        raise InputError("is empty; name at least one agent", field="agents")
    common, team_model = values.policy(error_policy, ERROR_POLICY), values.model_name(model, "model")
    reserved = (SUPERVISOR, FINISH) if mode == SUPERVISOR else ()
    specs: list[AgentSpec] = []
    for index, entry in enumerate(agents):
        holder = f"agents[{index}]"
        fields = dict(values.mapping(entry, holder))
        values.check_agent_name(fields.get("name"), [spec.name for spec in specs], reserved, f"{holder}.name")
        at = partial(_within, holder)
        check_keys(fields, "team", holder, at)
        depends_on = values.names(fields.get("depends_on"), at("depends_on"))
        if depends_on and mode != "graph" and not is_template(mode):
            raise InputError(f"is for the mode 'graph', not {mode!r}", field=at("depends_on"))
        spec = _spec(fields, holder, at, default_model=team_model)
        specs.append(
            replace(
                spec,
                required=values.flag(fields.get("required"), at("required"), True),
                depends_on=depends_on,
                description=values.description(fields.get("description"), at("description")),
                error_policy=values.both_policies(common, spec.error_policy),
            )
        )
    _check_dependencies(specs)
    return specs


def parse_max_steps(value: Any, mode: Any, *, agents: int) -> int:
    """How many calls of agents a supervisor may make: at most `MAX_STEPS`, by default two per agent and two more.

    Raises `InputError` naming `max_steps`; also when it is given for another mode.
    """
    if value is None:
        return min(2 * agents + 2, MAX_STEPS)
    if mode != SUPERVISOR and not is_template(mode):
        raise InputError(f"is for the mode 'supervisor', not {mode!r}", field="max_steps")
    return values.whole_number(value, MAX_STEPS, "max_steps")


def parse_supervisor(
    argument: Any, mode: Any = SUPERVISOR, *, model: Any = None, error_policy: Any = None
) -> AgentSpec:
    """The supervisor of a team: None for the built-in one, a dict to configure it.

    Raises `InputError` naming `supervisor`; also when it is given for another mode.
    """
    spec = _team_role(SUPERVISOR, SUPERVISOR, {} if argument is None else argument, model, error_policy)
    if argument is not None and mode != SUPERVISOR and not is_template(mode):
        raise InputError(f"is for the mode 'supervisor', not {mode!r}", field=SUPERVISOR)
    return spec


def synthesis_spec(argument: Any, specs: Sequence[AgentSpec], model: Any, error_policy: Any = None) -> AgentSpec | None:
    """The agent that summarizes a team's results: True for the built-in one, a dict to configure it, False for none.

    Raises `InputError` naming `synthesis`.
    """
    if isinstance(argument, str) and argument.strip().lower() in ("true", "false"):  # a template's result
        argument = argument.strip().lower() == "true"
    if argument is False:
        return None
    if argument is not True and not isinstance(argument, Mapping):
        raise InputError("has to be True, False or a dict", field=SYNTHESIS)
    name = SYNTHESIS
    while any(spec.name == name for spec in specs):
        name += "_"
    return _team_role(SYNTHESIS, name, {} if argument is True else argument, model, error_policy)


def check_connection(specs: Iterable[AgentSpec], llm_conn_id: Any) -> None:
    """Raise `InputError` if there is a connection although no agent is a built-in one, which could use it."""
    if llm_conn_id and all(spec.graph is not None for spec in specs):
        raise InputError(
            "is for built-in agents; a graph of one's own makes its models itself: let its code read the connection",
            field="llm_conn_id",
        )


def check_team_model(specs: Iterable[AgentSpec], model: Any) -> None:
    """Raise `InputError` if a team has a model although no agent is a built-in one, which could use it."""
    if model and all(spec.graph is not None for spec in specs):
        raise InputError(refusal("model", "team", own_graph=True), field="model")


def _team_role(role: str, name: str, argument: Any, model: Any, error_policy: Any) -> AgentSpec:
    """A built-in agent with a role in the team, configured by the argument of the same name."""
    config, at = dict(values.mapping(argument, role)), partial(_within, role)
    check_keys(config, "role", role, at)
    fields = {key: value for key, value in config.items() if key not in ("name", "type")}
    spec = _spec({**fields, "type": role, "name": name}, role, at, default_model=values.model_name(model, "model"))
    common = values.policy(error_policy, ERROR_POLICY)
    return replace(spec, error_policy=values.both_policies(common, spec.error_policy))


def _within(holder: str, key: str) -> str:
    return f"{holder}.{key}"


def _same(key: str, one: Any, other: Any) -> bool:
    """Whether two values of a key say the same, as far as that is known before they are rendered."""
    if is_template(one) or is_template(other):
        return True
    if key == "timeout":
        return values.seconds(one, f"agent_config.{key}") == values.seconds(other, key)
    return bool(one == other)


def _spec(
    fields: Mapping[str, Any], holder: str, at: Callable[[str], str], *, default_model: str | None = None
) -> AgentSpec:
    """The agent that the fields describe; `holder` and `at` are those of `check_keys`, which has passed them."""
    input_data, policy = fields.get("input_data"), values.policy(fields.get(ERROR_POLICY), at(ERROR_POLICY))
    common: dict[str, Any] = {
        "timeout": values.seconds(fields.get("timeout"), at("timeout")),
        "output_mapping": values.output_paths(fields.get("output_mapping"), at("output_mapping")),
        "error_policy": policy,
    }
    if fields.get("graph") is not None:
        check_graph_policy(policy, at(ERROR_POLICY))
        return replace(_own_graph(fields, at), input_data=None if is_later(input_data) else input_data, **common)
    common["input_data"] = values.optional_mapping(input_data, at("input_data"))
    model = values.model_name(fields.get("model"), at("model")) or default_model
    return replace(_built_in(fields, model, holder, at), **common, model=model)


def _built_in(fields: Mapping[str, Any], model: str | None, holder: str, at: Callable[[str], str]) -> AgentSpec:
    # Imported here because the registry imports every agent's graph, which DAG files without agents need not pay for.
    from backend.agents.config import AgentConfig
    from backend.agents.registry import AGENTS
    from backend.models.options import check_options
    from backend.models.resolve import check_name

    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        raise InputError(f"is missing; it has to be one of {', '.join(AGENTS)}", field=at("type"))
    own = {key: value for key, value in fields.items() if key not in AGENT_KEYS}
    if not is_template(kind):
        if kind not in AGENTS:
            raise InputError(f"is {kind!r}; it has to be one of {', '.join(AGENTS)}", field=at("type"))
        values.check_schema(own.get("output_schema"), kind, AGENTS[kind].schema, at("output_schema"))
        if own.get("tools") and not AGENTS[kind].tools:
            able = " and ".join(name for name, agent in AGENTS.items() if agent.tools)
            raise InputError(f"are not for the {kind} agent: only {able} call tools", field=at("tools"))
        if own.get("output_method") and AGENTS[kind].schema == "optional" and own.get("output_schema") is None:
            raise InputError("needs an output_schema, without which no answer is structured", field=at("output_method"))
    try:
        # What a template will render to is checked when the task runs.
        config = AgentConfig.parse({key: value for key, value in own.items() if not is_template(value)})
        if model is not None and not is_template(model):
            check_options(check_name(model)[0], config.options)
    except InputError as error:
        raise InputError(error.message, field=holder) from None
    return AgentSpec(str(fields.get("name") or kind), kind, own)


def _own_graph(fields: Mapping[str, Any], at: Callable[[str], str]) -> AgentSpec:
    # Imported here because reading the settings takes time that DAG files without graphs need not pay for.
    from backend.core.settings import get_settings
    from backend.runtime.langgraph_json import GraphLoadError, check_reference
    from backend.runtime.projects.library import find_graph, split

    if fields.get("type") not in (None, "graph"):
        raise InputError("can't be given together with graph", field=at("type"))
    graph = fields["graph"]
    if not is_template(graph):
        try:
            if isinstance(graph, str) and split(graph) is not None:
                find_graph(get_settings().projects_dir, graph)
            else:
                check_reference(graph, get_settings().langgraph_json)
        except InputError as error:
            raise GraphLoadError(error.message, field=at("graph")) from None
    return AgentSpec(
        name=str(fields.get("name") or re.split("[:/]", str(graph))[-1]),
        type="graph",
        graph=graph,
        context=values.optional_mapping(fields.get("context"), at("context")),
        run_config=values.run_config(fields.get("config"), fields.get("configurable"), at),
        thread=values.conversation(fields.get("thread"), at("thread")),
    )


def _check_dependencies(specs: list[AgentSpec]) -> None:
    """Refuse unknown names and cycles."""
    names = [spec.name for spec in specs]
    if is_template(names):
        return  # known when the task runs
    for index, spec in enumerate(specs):
        place = f"agents[{index}].depends_on"
        for name in spec.depends_on:
            if name == spec.name:
                raise InputError(f"names {name!r}, the agent itself", field=place)
            if name not in names and not is_template(name):
                raise InputError(f"names {name!r}, which is no agent; there are {', '.join(names)}", field=place)
    try:
        TopologicalSorter({spec.name: spec.depends_on for spec in specs}).prepare()
    except CycleError as error:
        # `graphlib` lists each agent before the one that depends on it.
        cycle = [*reversed(error.args[1])]
        first = min(cycle, key=names.index)
        at = cycle.index(first)
        shown = [*cycle[at:-1], *cycle[:at], first] if at else cycle
        raise InputError(
            f"makes a cycle: {' → '.join(shown)} (each needs the next)",
            field=f"agents[{names.index(first)}].depends_on",
        ) from None
