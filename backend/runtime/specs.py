"""The specs of a task's agents, checked as early as possible. Light to import, because DAG files import it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args

from backend.agents.supervisor_choice import FINISH
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import FIELD as ERROR_POLICY
from backend.core.errors.policy import parse_error_policy

Mode = Literal["parallel", "sequential", "graph", "supervisor"]
MODES: tuple[str, ...] = get_args(Mode)

SYNTHESIS = "synthesis"
SUPERVISOR = "supervisor"

MAX_NAME_CHARS = 100
MAX_DESCRIPTION_CHARS = 2_000
MAX_STEPS = 200

OWN_GRAPH_KEYS = ("graph", "context", "configurable", "output_mapping")
AGENT_KEYS = frozenset(
    {"name", "type", "input_data", "model", "required", "timeout", "depends_on", "description"}
    | {ERROR_POLICY, *OWN_GRAPH_KEYS}
)
"""The keys of an entry of `agents` that aren't the agent's own configuration."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent of a task.

    `input_data` None stands for the run's own input. `timeout` is in seconds. A `required` agent that fails makes the
    task fail. `graph` names a user's own graph, whose `type` is `graph`; `context` and `configurable` are passed to it,
    and `output_mapping` picks parts of its output. `depends_on` names the agents whose results it receives in the mode
    `graph`, and `description` explains its purpose to a supervisor. `error_policy` overrides parts of the settings'.
    """

    name: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    input_data: dict[str, Any] | None = None
    model: str | None = None
    required: bool = True
    timeout: float | None = None
    graph: str | None = None
    context: dict[str, Any] | None = None
    configurable: dict[str, Any] = field(default_factory=dict)
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
    output_mapping: Any = None,
    output_schema: Any = None,
    error_policy: Any = None,
) -> AgentSpec:
    """The agent of a `LangGraphOperator`. Raises `InputError` naming the argument.

    `output_schema` means the same as that key in `agent_config`; `error_policy` takes precedence over that key.
    """
    if agent_config is None and graph is None:
        raise InputError(
            "is missing; give agent_config={'type': …} or graph='package.module:attribute'", field="agent_config"
        )
    config = {} if agent_config is None else dict(_mapping(agent_config, "agent_config"))
    config.setdefault("name", str(graph).rpartition(":")[2] if graph is not None else config.get("type"))
    own = {"graph": graph, "context": context, "configurable": configurable, "output_mapping": output_mapping}
    fields = {**config, **{key: value for key, value in own.items() if value is not None}}
    schema_field = None
    if output_schema is not None:
        if config.get("output_schema") not in (None, output_schema):
            raise InputError("is another one than that of agent_config; give it once", field="output_schema")
        fields["output_schema"], schema_field = output_schema, "output_schema"
    own_policy = _policy(fields.pop(ERROR_POLICY, None), f"agent_config.{ERROR_POLICY}")
    spec = _spec(fields, input_data, model, timeout, "agent_config", "", schema_field)
    return replace(spec, error_policy=_both(own_policy, _policy(error_policy, ERROR_POLICY)))


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
    common = _policy(error_policy, ERROR_POLICY)
    specs: list[AgentSpec] = []
    for index, entry in enumerate(agents):
        field_name = f"agents[{index}]"
        fields = dict(_mapping(entry, field_name))
        _check_name(fields.get("name"), [spec.name for spec in specs], mode, f"{field_name}.name")
        required = fields.pop("required", True)
        if not isinstance(required, bool):
            raise InputError("has to be True or False", field=f"{field_name}.required")
        depends_on = _names(fields.pop("depends_on", None), f"{field_name}.depends_on")
        if depends_on and mode != "graph" and not is_template(mode):
            raise InputError(f"is for the mode 'graph', not {mode!r}", field=f"{field_name}.depends_on")
        policy = _both(common, _policy(fields.pop(ERROR_POLICY, None), f"{field_name}.{ERROR_POLICY}"))
        spec = _spec(
            fields,
            fields.pop("input_data", None),
            fields.pop("model", None) or model,
            fields.pop("timeout", None),
            field_name,
            f"{field_name}.",
        )
        description = _description(fields.pop("description", None), f"{field_name}.description")
        spec = replace(spec, required=required, depends_on=depends_on, description=description, error_policy=policy)
        specs.append(spec)
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
    return whole_number(value, MAX_STEPS, "max_steps")


def whole_number(value: Any, limit: int, field_name: str) -> int:
    """A number from 1 to `limit`, which is text if it comes from a template. Raises `InputError` naming the field."""
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= limit:
        raise InputError(f"has to be a whole number from 1 to {limit}", field=field_name)
    return number


def parse_supervisor(argument: Any, *, model: Any = None, error_policy: Any = None) -> AgentSpec:
    """The supervisor of a team: None for the built-in one, a dict to configure it.

    Raises `InputError` naming `supervisor`.
    """
    return _team_role(SUPERVISOR, SUPERVISOR, {} if argument is None else argument, model, error_policy)


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


def _team_role(role: str, name: str, argument: Any, model: Any, error_policy: Any) -> AgentSpec:
    """A built-in agent with a role in the team, configured by the argument of the same name."""
    config = dict(_mapping(argument, role))
    own_model, timeout = config.pop("model", None), config.pop("timeout", None)
    own_policy = _policy(config.pop(ERROR_POLICY, None), f"{role}.{ERROR_POLICY}")
    if unknown := sorted(AGENT_KEYS.intersection(config)):
        raise InputError(f"can't set {unknown[0]!r}", field=role)
    if own_model is None and model is not None and not isinstance(model, str):  # the team's
        raise InputError("has to be a model's name, such as 'openai:gpt-4.1'", field="model")
    spec = _spec({**config, "type": role, "name": name}, None, own_model or model, timeout, role, f"{role}.")
    return replace(spec, error_policy=_both(_policy(error_policy, ERROR_POLICY), own_policy))


def is_template(value: Any) -> bool:
    """Whether a value, or a part of it, is known only when the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_template(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_template(item) for item in value)
    return hasattr(value, "resolve") and hasattr(value, "iter_references")  # an XComArg, without importing Airflow


def without_ellipsis(input_data: Any) -> Any:
    """Return None, which stands for the run's own input, for `{...}` and `...`."""
    if input_data is ... or (isinstance(input_data, set) and input_data == {...}):
        return None
    return input_data


def _spec(
    config: dict[str, Any],
    input_data: Any,
    model: Any,
    timeout: Any,
    config_field: str,
    prefix: str,
    schema_field: str | None = None,
) -> AgentSpec:
    # Imported here because the registry imports every agent's graph, which DAG files without agents need not pay for.
    from backend.agents.config import AgentConfig
    from backend.agents.registry import AGENTS

    if model is not None and not isinstance(model, str):
        raise InputError("has to be a model's name, such as 'openai:gpt-4.1'", field=f"{prefix}model")
    common: dict[str, Any] = {
        "input_data": None if input_data is None else dict(_mapping(input_data, f"{prefix}input_data")),
        "model": model or None,
        "timeout": _seconds(timeout, f"{prefix}timeout"),
    }
    schema_field = schema_field or f"{config_field}.output_schema"
    if config.get("graph") is not None:
        if config.get("output_schema") is not None:
            raise InputError("is not for a graph of one's own, whose output has its own form", field=schema_field)
        return replace(_own_graph(config, config_field, prefix), **common)
    kind = config.get("type")
    if not isinstance(kind, str) or not kind:
        raise InputError(f"is missing; it has to be one of {', '.join(AGENTS)}", field=f"{config_field}.type")
    own = {key: value for key, value in config.items() if key not in AGENT_KEYS}
    if not is_template(kind):
        if kind not in AGENTS:
            raise InputError(f"is {kind!r}; it has to be one of {', '.join(AGENTS)}", field=f"{config_field}.type")
        _check_schema(own.get("output_schema"), kind, AGENTS[kind].schema, schema_field)
        if not is_template(own):
            try:
                AgentConfig.parse(own)
            except InputError as error:
                raise InputError(error.message, field=config_field) from None
    return AgentSpec(str(config.get("name") or kind), kind, own, **common)


def _own_graph(config: dict[str, Any], config_field: str, prefix: str) -> AgentSpec:
    # Imported here because reading the settings takes time that DAG files without graphs need not pay for.
    from backend.core.settings import get_settings
    from backend.runtime.langgraph_json import GraphLoadError, check_reference

    if config.get("type") not in (None, "graph"):
        raise InputError("can't be given together with graph", field=f"{config_field}.type")
    graph = config["graph"]
    if not is_template(graph):
        try:
            check_reference(graph, get_settings().langgraph_json)
        except InputError as error:
            raise GraphLoadError(error.message, field=f"{prefix}graph") from None
    mapping = config.get("output_mapping")
    if mapping is not None and not all(
        isinstance(path, str) for path in _mapping(mapping, f"{prefix}output_mapping").values()
    ):
        raise InputError("has to map names to paths such as 'messages.-1.content'", field=f"{prefix}output_mapping")
    unknown = config.keys() - AGENT_KEYS
    if unknown:
        detail = f"has {min(unknown)!r}, which a graph of one's own doesn't take; pass it in configurable or context"
        raise InputError(detail, field=config_field)
    context, configurable = config.get("context"), config.get("configurable")
    return AgentSpec(
        name=str(config.get("name") or "graph"),
        type="graph",
        graph=graph,
        context=None if context is None else dict(_mapping(context, f"{prefix}context")),
        configurable={} if configurable is None else dict(_mapping(configurable, f"{prefix}configurable")),
        output_mapping=None if mapping is None else dict(mapping),
    )


def _check_name(name: Any, others: list[str], mode: Any, field_name: str) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InputError("is missing; every agent has a name", field=field_name)
    if len(name) > MAX_NAME_CHARS:
        raise InputError(f"has {len(name)} characters; {MAX_NAME_CHARS} are the limit", field=field_name)
    if "/" in name:
        raise InputError(f"is {name!r}; a name can't hold a slash", field=field_name)
    if name in others:
        raise InputError(f"is {name!r}, which another agent has; names are unique", field=field_name)
    if mode == SUPERVISOR and name in (SUPERVISOR, FINISH):
        raise InputError(f"is {name!r}, which has a meaning of its own in the mode 'supervisor'", field=field_name)


def _names(value: Any, field_name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise InputError("has to be a list of agents' names", field=field_name)
    if len(set(value)) < len(value):
        raise InputError("names an agent twice", field=field_name)
    return tuple(value)


def _description(value: Any, field_name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_DESCRIPTION_CHARS:
        raise InputError(f"has to be text of 1 to {MAX_DESCRIPTION_CHARS} characters", field=field_name)
    return value.strip()


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


def _check_schema(schema: Any, kind: str, use: str, field_name: str) -> None:
    if schema is None:
        if use == "required":
            raise InputError(f"is missing; the agent {kind!r} needs it", field=field_name)
        return
    if use == "none":
        raise InputError(f"is given, but the output of the agent {kind!r} has its own form", field=field_name)
    if is_template(schema):
        return
    # Imported here because jsonschema is slow to import, and few DAG files have a schema.
    from backend.agents.output_schema import check_output_schema

    try:
        check_output_schema(schema)
    except InputError as error:
        raise InputError(error.message, field=field_name) from None


def _policy(argument: Any, field_name: str) -> dict[str, Any] | None:
    """An error policy, unchanged. One with templates is checked when the task runs."""
    if argument is None:
        return None
    policy = dict(_mapping(argument, field_name))
    if not is_template(policy):
        parse_error_policy(policy, field_name=field_name)
    return policy


def _both(common: dict[str, Any] | None, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The agent's own policy merged over the common one, category by category."""
    if not common or not own:
        return own or common
    merged = dict(common)
    for key, value in own.items():
        known = common.get(key)
        merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _mapping(value: Any, field_name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"has to be a dict, not {type(value).__name__}", field=field_name)
    if any(not isinstance(key, str) for key in value):
        raise InputError("has a key that is no string", field=field_name)
    return value


def _seconds(value: Any, field_name: str) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    # NaN is not above 0 either.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise InputError("has to be a number of seconds above 0 or a timedelta", field=field_name)
    return float(seconds)
