"""Checks teams that come with a run's input or in a workflow template.

They are checked like a DAG author's, and more strictly: a request may describe what agents do, but must not name code
to run, be it Jinja or a module to import.
"""

import re
from collections.abc import Mapping
from typing import Any

from backend.agents.config import check_text
from backend.agents.registry import AGENTS
from backend.core.errors.input_error import InputError
from backend.core.run_envelope import SYSTEM_KEY
from backend.runtime.spec_values import is_template
from backend.runtime.specs import parse_max_steps, parse_supervisor
from backend.runtime.team.arguments import TEAM_ARGUMENTS, Team, parse_team_arguments

INPUT_REFERENCE = "$input"
"""`{"$input": "name"}` in an agent's `input_data` stands for that field of the run's input."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

SHARED = ("query", "image_url", "text")
"""The fields of the run's input that every built-in agent receives, whatever its own `input_data` is."""

_NO_JINJA = (
    f'holds Jinja, which is for DAG files and isn\'t rendered here; {{"{INPUT_REFERENCE}": "name"}} in an agent\'s '
    "input_data stands for a field of the run's input"
)


def check_team(arguments: Mapping[str, Any], *, kept: bool = False) -> Team:
    """Check the team in `TEAM_ARGUMENTS`, independently of the run's input.

    In a team that is `kept` for later runs, the agents' `input_data` must not contain Jinja either: there it would be a
    mistake, while a run may bring any text to work on. Raises `InputError` naming the argument, such as
    `agents[0].depends_on`.
    """
    agents = arguments.get("agents")
    for argument in TEAM_ARGUMENTS:
        if argument != "agents":
            _refuse_code(arguments.get(argument), argument)
    if isinstance(agents, list):
        for index, entry in enumerate(agents):
            _check_entry(entry, f"agents[{index}]", kept)
    team = parse_team_arguments(arguments)
    parse_max_steps(arguments.get("max_steps"), team.mode, agents=len(team.specs))
    parse_supervisor(arguments.get("supervisor"), team.mode)
    return team


def plan_agents(arguments: Mapping[str, Any], *, max_text_chars: int | None = None) -> list[dict[str, Any]]:
    """The team's agents, each with the input that it will have in a run with this input.

    A built-in agent receives the run's `query`, `image_url` and `text`, over which its own `input_data` takes
    precedence. A graph receives its own `input_data`, or else the run's whole input. Without `agents`, the vision agent
    receives the picture and the text agent the text, or the question if there is neither. Raises `InputError` naming
    the argument, or the field that is missing, empty or longer than `max_text_chars`.
    """
    if not arguments.get("agents"):
        arguments = {**arguments, "agents": _fitting(shared_input(arguments))}
    team = check_team(arguments)
    agents = [_with_input(entry, arguments, f"agents[{index}]") for index, entry in enumerate(arguments["agents"])]
    for index, (spec, entry) in enumerate(zip(team.specs, agents, strict=True)):
        # A later agent may find what it lacks in the results of the earlier ones.
        first = index == 0 and team.mode == "sequential"
        alone = team.mode == "parallel" or first or (team.mode == "graph" and not spec.depends_on)
        if spec.type in AGENTS and alone:
            AGENTS[spec.type].check_input(entry["input_data"])
        if spec.type in AGENTS and max_text_chars is not None:
            own = arguments["agents"][index].get("input_data") or {}
            for name, value in entry["input_data"].items():
                place = f"agents[{index}].input_data.{name}" if name in own else name
                check_text(name, value, max_text_chars, place)
    return agents


def shared_input(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's input that all built-in agents receive: those of the fields that hold text."""
    return {key: arguments[key] for key in SHARED if isinstance(arguments.get(key), str) and arguments[key].strip()}


def _fitting(shared: dict[str, Any]) -> list[dict[str, Any]]:
    """The agents for an input that names none."""
    agents: list[dict[str, Any]] = []
    if "image_url" in shared:
        agents.append({"name": "vision", "type": "vision"})
    if "text" in shared:
        agents.append({"name": "text", "type": "text"})
    if not agents and "query" in shared:
        agents.append({"name": "text", "type": "text", "input_data": {"text": {INPUT_REFERENCE: "query"}}})
    if not agents:
        raise InputError("is empty; give at least one of query, image_url and text", field="input_data")
    return agents


def _with_input(entry: Mapping[str, Any], arguments: Mapping[str, Any], place: str) -> dict[str, Any]:
    own = entry.get("input_data")
    filled = None if own is None else _filled(own, arguments, f"{place}.input_data")
    if entry.get("graph") is not None:
        own_keys = {*TEAM_ARGUMENTS, SYSTEM_KEY}
        run_input = {key: value for key, value in arguments.items() if value is not None and key not in own_keys}
        return {**entry, "input_data": run_input if filled is None else filled}
    return {**entry, "input_data": {**shared_input(arguments), **(filled or {})}}


def _filled(value: Any, arguments: Mapping[str, Any], place: str) -> Any:
    name = _referred(value, place)
    if name is not None:
        if arguments.get(name) is None:
            raise InputError(f"is missing; {place} refers to it", field=name)
        return arguments[name]
    if isinstance(value, Mapping):
        return {key: _filled(item, arguments, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, arguments, f"{place}[{index}]") for index, item in enumerate(value)]
    return value


def _check_entry(entry: Any, place: str, kept: bool) -> None:
    if not isinstance(entry, Mapping):
        return  # `parse_team` says so
    for key, value in entry.items():
        if key == "input_data" and not (kept and is_template(value)):
            _check_references(value, f"{place}.input_data")
        else:
            _refuse_code(value, f"{place}.{key}")
    _refuse_code({"output_schema": entry.get("output_schema")}, place)
    if entry.get("tools") is not None:
        raise InputError("name code and connections, which is for DAG files", field=f"{place}.tools")
    graph = entry.get("graph")
    if isinstance(graph, str) and ":" in graph:
        raise InputError(
            "names code, which is for DAG files; here it has to be a name in the langgraph.json that "
            "VISUAL_AI_LANGGRAPH_JSON points to",
            field=f"{place}.graph",
        )


def _refuse_code(value: Any, place: str) -> None:
    if isinstance(value, Mapping) and isinstance(value.get("output_schema"), str):
        raise InputError(
            "names code, which is for DAG files; here it has to be a JSON Schema", field=f"{place}.output_schema"
        )
    if is_template(value) or (isinstance(value, Mapping) and is_template(list(value))):
        raise InputError(_NO_JINJA, field=place)


def _check_references(value: Any, place: str) -> None:
    """Raise `InputError` for a malformed reference to a field of the run's input."""
    if _referred(value, place) is None and isinstance(value, Mapping):
        for key, item in value.items():
            _check_references(item, f"{place}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_references(item, f"{place}[{index}]")


def _referred(value: Any, place: str) -> str | None:
    if not isinstance(value, Mapping) or INPUT_REFERENCE not in value:
        return None
    name = value[INPUT_REFERENCE]
    if len(value) > 1 or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f'has to read {{"{INPUT_REFERENCE}": "name"}}, with the name of a field of the run\'s input and nothing '
            "beside it",
            field=place,
        )
    return name
