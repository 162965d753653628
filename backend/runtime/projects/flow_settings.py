"""How Airflow runs a project's graphs: `flow.toml` beside `langgraph.json`.

`[flow]` holds for all graphs, and `[flow.<graph>]` for one of them:

    [flow]
    owner = "research"
    retries = 3

    [flow.agent]
    schedule = "0 6 * * *"
    input = { messages = "What happened yesterday?" }
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any

from backend.core.asking.terms import parse_terms
from backend.core.budget import parse_budget
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import parse_error_policy
from backend.runtime.langgraph_json import Project

FILE = "flow.toml"
SECTION = "flow"
START = datetime(2024, 1, 1, tzinfo=UTC)


class FlowSettingsError(InputError):
    """A `flow.toml` is wrong. A retry doesn't help."""

    field = FILE


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """One graph's DAG. `schedule` is a cron expression or the URIs of assets; `retry_delay` and `timeout` are seconds.

    `input`, `context` and `configurable` are the defaults of the run's parameters, and what scheduled runs get.
    """

    dag_id: str | None = None
    description: str | None = None
    schedule: str | tuple[str, ...] | None = None
    start_date: datetime = START
    catchup: bool = False
    paused: bool | None = None
    max_active_runs: int = 100
    owner: str = "airflow"
    tags: tuple[str, ...] = ()
    pool: str | None = None
    queue: str | None = None
    retries: int = 2
    retry_delay: float = 10.0
    timeout: float | None = None
    deferrable: bool | None = None
    durability: str | None = None
    budget: Mapping[str, Any] | None = None
    error_policy: Mapping[str, Any] | None = None
    questions: Mapping[str, Any] | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    configurable: Mapping[str, Any] = field(default_factory=dict)


def flow_settings(project: Project) -> dict[str, FlowSettings]:
    """The settings of each graph of a project. Raises `FlowSettingsError` naming the place and the remedy."""
    file = project.folder / FILE
    if not file.is_file():
        return dict.fromkeys(project.graphs, FlowSettings())
    try:
        section = tomllib.loads(file.read_text()).get(SECTION)
    except (OSError, ValueError) as error:
        raise FlowSettingsError(f"{file} can't be read: {error}", field=FILE) from error
    if not isinstance(section, dict):
        raise FlowSettingsError(f"{file} has no section [{SECTION}]", field=FILE)
    if clashes := [graph for graph in project.graphs if graph in _CHECKS]:
        raise FlowSettingsError(f"a graph can't be named {clashes[0]!r} where there is a {FILE}", field=str(file))
    common = {key: value for key, value in section.items() if key in _CHECKS}
    for key, value in section.items():
        if key not in _CHECKS and key not in project.graphs:
            what = "graph" if isinstance(value, dict) else "key"
            raise FlowSettingsError(_unknown(key, what, [*_CHECKS, *project.graphs]), field=f"{file}: {SECTION}.{key}")
    found = {}
    for graph in project.graphs:
        own = section.get(graph, {})
        if not isinstance(own, dict):
            raise FlowSettingsError("has to be a section", field=f"{file}: {SECTION}.{graph}")
        settings = _changed(FlowSettings(), common, f"{file}: {SECTION}")
        found[graph] = _changed(settings, own, f"{file}: {SECTION}.{graph}")
    return found


def dag_ids_of(project: Project, settings: Mapping[str, FlowSettings], name: str | None = None) -> dict[str, str]:
    """The id of each graph's DAG: its own, or `<name>.<graph>`, because many projects have a graph named `agent`.

    A project without a name has that of its folder.

    Raises `FlowSettingsError` if two graphs have the same.
    """
    found: dict[str, str] = {}
    for graph in project.graphs:
        usual = re.sub(r"[^\w.-]", "_", f"{name or project.folder.name}.{graph}", flags=re.ASCII)[:200]
        dag_id = settings[graph].dag_id or usual
        if dag_id in found.values():
            raise FlowSettingsError(f"two graphs have the dag_id {dag_id!r}", field=str(project.folder / FILE))
        found[graph] = dag_id
    return found


def _changed(settings: FlowSettings, own: Mapping[str, Any], place: str) -> FlowSettings:
    changes = {}
    for key, value in own.items():
        check = _CHECKS.get(key)
        if check is None:
            raise FlowSettingsError(_unknown(key, "key", list(_CHECKS)), field=f"{place}.{key}")
        try:
            changes[key] = check(value)
        except InputError as error:
            raise FlowSettingsError(error.message, field=f"{place}.{error.field}") from None
        except (TypeError, ValueError) as error:
            raise FlowSettingsError(str(error), field=f"{place}.{key}") from None
    return replace(settings, **changes)


def _unknown(key: str, what: str, known: list[str]) -> str:
    near = get_close_matches(key, known, 1)
    return f"is no {what} that has an effect" + (
        f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("has to be a text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("has to be true or false")
    return value


def _number(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"has to be a whole number from {least} to {most}")
        return value

    return check


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10 * 366 * 86_400:
        raise ValueError("has to be a number of seconds above 0")
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        raise ValueError("has to be a list of texts")
    return tuple(value)


def _schedule(value: Any) -> str | tuple[str, ...]:
    return _texts(value) if isinstance(value, list) else _text(value)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ValueError("has to be a date, such as 2026-01-31")


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("has to be a table")
    return value


def _durability(value: Any) -> str:
    if value not in ("async", "sync", "exit"):
        raise ValueError("has to be 'async', 'sync' or 'exit'")
    return str(value)


def _checked(parse: Callable[[Any], Any]) -> Callable[[Any], Mapping[str, Any]]:
    def check(value: Any) -> Mapping[str, Any]:
        found = _table(value)
        parse(found)
        return found

    return check


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "dag_id": _text,
    "description": _text,
    "schedule": _schedule,
    "start_date": _moment,
    "catchup": _flag,
    "paused": _flag,
    "max_active_runs": _number(1, 10_000),
    "owner": _text,
    "tags": _texts,
    "pool": _text,
    "queue": _text,
    "retries": _number(0, 1_000),
    "retry_delay": _seconds,
    "timeout": _seconds,
    "deferrable": _flag,
    "durability": _durability,
    "budget": _checked(parse_budget),
    "error_policy": _checked(parse_error_policy),
    "questions": _checked(parse_terms),
    "input": _table,
    "context": _table,
    "configurable": _table,
}
"""Each key with what checks and converts its value."""
