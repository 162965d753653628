"""What a task asks of its agents, checked as early as can be. Light to import: DAG files pay for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args

from backend.core.input_error import InputError

Mode = Literal["parallel", "sequential", "graph", "supervisor"]
MODES: tuple[str, ...] = get_args(Mode)

AGENT_KEYS = frozenset({"name", "type", "input_data", "model", "required", "timeout", "depends_on", "description"})
"""What an entry of `agents` may hold besides the agent's own configuration."""

MAX_NAME_CHARS = 100
MAX_DESCRIPTION_CHARS = 2_000
MAX_STEPS = 200

SUPERVISOR = "supervisor"
FINISH = "FINISH"
"""What a supervisor says when the work is done."""


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent of a task.

    `input_data` None means the run's own input. `timeout` is in seconds. A `required` agent that fails fails the task.
    `depends_on` names the agents whose results it gets in the mode `graph`; `description` tells a supervisor what it is
    for.
    """

    name: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    input_data: dict[str, Any] | None = None
    model: str | None = None
    required: bool = True
    timeout: float | None = None
    depends_on: tuple[str, ...] = ()
    description: str | None = None


def parse_agent(
    agent_config: Any,
    input_data: Any,
    *,
    model: Any = None,
    timeout: Any = None,
    name: str | None = None,
    output_schema: Any = None,
) -> AgentSpec:
    """The agent of a `LangGraphOperator`. Raises `InputError` naming the argument.

    `output_schema` is the same as the key of that name in `agent_config`.
    """
    given = _mapping(agent_config, "agent_config")
    config = {**given, "name": name or given.get("type")}
    schema_field = "agent_config.output_schema"
    if output_schema is not None:
        if config.get("output_schema") not in (None, output_schema):
            raise InputError("is another one than that of agent_config; give it once", field="output_schema")
        config["output_schema"] = output_schema
        schema_field = "output_schema"
    return _spec(config, input_data, model, True, timeout, "agent_config", "input_data", schema_field)


def parse_team(agents: Any, mode: Any, *, model: Any = None) -> list[AgentSpec]:
    """The agents of a `MultiAgentOperator`, in order. Raises `InputError` naming the argument and the entry.

    `mode` None stands for one that is only known when the task runs: what depends on it isn't checked.
    """
    if mode is not None and mode not in MODES:
        raise InputError(f"is {mode!r}; it has to be one of {', '.join(MODES)}", field="orchestration_mode")
    if isinstance(agents, str | Mapping) or not isinstance(agents, Sequence):
        raise InputError("has to be a list of agents", field="agents")
    if not agents:
        raise InputError("is empty; name at least one agent", field="agents")
    specs: list[AgentSpec] = []
    for index, entry in enumerate(agents):
        field_name = f"agents[{index}]"
        given = dict(_mapping(entry, field_name))
        _check_name(given.get("name"), [spec.name for spec in specs], mode, f"{field_name}.name")
        required = given.pop("required", True)
        if not isinstance(required, bool):
            raise InputError("has to be True or False", field=f"{field_name}.required")
        depends_on = _names(given.pop("depends_on", None), f"{field_name}.depends_on")
        if depends_on and mode not in (None, "graph"):
            raise InputError(f"is for the mode 'graph', not {mode!r}", field=f"{field_name}.depends_on")
        spec = _spec(
            given,
            given.pop("input_data", None),
            given.pop("model", None) or model,
            required,
            given.pop("timeout", None),
            field_name,
            f"{field_name}.input_data",
            f"{field_name}.output_schema",
        )
        description = _description(given.pop("description", None), f"{field_name}.description")
        specs.append(replace(spec, depends_on=depends_on, description=description))
    _check_dependencies(specs)
    return specs


def parse_max_steps(value: Any, mode: Any, *, agents: int) -> int:
    """How often a supervisor may call an agent: at most `MAX_STEPS`, by default twice for each agent and two more.

    Raises `InputError` naming `max_steps`; also when it is given for another mode (None: one that is known later).
    """
    if value is None:
        return min(2 * agents + 2, MAX_STEPS)
    if mode not in (None, SUPERVISOR):
        raise InputError(f"is for the mode 'supervisor', not {mode!r}", field="max_steps")
    # A templated argument arrives as text.
    steps = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise InputError(f"has to be a whole number from 1 to {MAX_STEPS}", field="max_steps")
    return steps


def parse_supervisor(given: Any, *, model: Any = None) -> AgentSpec:
    """The supervisor of a team: None for the built-in one as it is, a dict to set it up. Raises `InputError`."""
    config = {} if given is None else dict(_mapping(given, "supervisor"))
    if "type" in config:
        raise InputError("is not needed; it is always a supervisor", field="supervisor.type")
    own_model, timeout = config.pop("model", None) or model, config.pop("timeout", None)
    try:
        return parse_agent({**config, "type": SUPERVISOR}, None, model=own_model, timeout=timeout)
    except InputError as error:
        field_name = error.field.replace("agent_config", SUPERVISOR)
        raise InputError(error.message, field=field_name if "." in field_name else SUPERVISOR) from None


def is_template(value: Any) -> bool:
    """Whether a value, or anything in it, is only known when the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(is_template(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(is_template(item) for item in value)
    return hasattr(value, "resolve") and hasattr(value, "iter_references")  # an XComArg, without importing Airflow


def without_ellipsis(input_data: Any) -> Any:
    """`{...}` and `...` stand for the run's own input."""
    if input_data is ... or (isinstance(input_data, set) and input_data == {...}):
        return None
    return input_data


def _spec(
    config: dict[str, Any],
    input_data: Any,
    model: Any,
    required: bool,
    timeout: Any,
    config_field: str,
    input_field: str,
    schema_field: str,
) -> AgentSpec:
    # Here, because it knows the graphs: only DAG files that name an agent need it.
    from backend.agents.agent_config import AgentConfig
    from backend.agents.registry import AGENTS

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
    if model is not None and not isinstance(model, str):
        raise InputError("has to be a model's name, such as 'openai:gpt-4.1'", field="model")
    return AgentSpec(
        name=str(config.get("name") or kind),
        type=kind,
        config=own,
        input_data=None if input_data is None else dict(_mapping(input_data, input_field)),
        model=model or None,
        required=required,
        timeout=_seconds(timeout, config_field),
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
    """Refuse names that no agent has and cycles."""
    names = [spec.name for spec in specs]
    if is_template(names):
        return  # known when the task runs
    for index, spec in enumerate(specs):
        for name in spec.depends_on:
            if name == spec.name:
                raise InputError(f"names {name!r}, the agent itself", field=f"agents[{index}].depends_on")
            if name not in names and not is_template(name):
                raise InputError(
                    f"names {name!r}, which is no agent; there are {', '.join(names)}",
                    field=f"agents[{index}].depends_on",
                )
    try:
        TopologicalSorter({spec.name: spec.depends_on for spec in specs}).prepare()
    except CycleError as error:
        # It gives each agent before the one that needs it.
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
    from backend.agents.output_schema import check_output_schema

    try:
        check_output_schema(schema)
    except InputError as error:
        raise InputError(error.message, field=field_name) from None


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
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        raise InputError("has to be a number of seconds above 0 or a timedelta", field=f"{field_name}.timeout")
    return float(seconds)
