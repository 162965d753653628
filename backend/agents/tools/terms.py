"""The key `tools` of an agent's configuration. Cheap to import, because DAG files import it.

An entry is a function's name, or a dict with exactly one of

- `function`: `package.module:name` of a function, or of a LangChain tool;
- `mcp`: the id of an Airflow connection to an MCP server, as common-ai's `MCPHook` reads it;
- `toolset`: `package.module:Class` of one of common-ai's toolsets, with `arguments` for it;

and beside it `only` (names of tools of a server or toolset), `approval` and `repeatable`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.core.errors.input_error import InputError
from backend.core.json_schema import JsonSchema, SchemaFaultError

Source = Literal["function", "mcp", "toolset"]
Approval = Literal["never", "always"] | JsonSchema
"""A schema: calls whose arguments fit it need no approval."""

MAX_TOOLS = 64
_KEYS = ("function", "mcp", "toolset", "arguments", "only", "approval", "repeatable")
_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ToolTerms:
    """Where tools come from, and under which terms they are called.

    `repeatable` tools have no effect that matters twice: a call that was cut off is simply made again.
    """

    source: Source
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    approval: Approval = "never"
    repeatable: bool = False


def parse_tools(value: Any) -> tuple[ToolTerms, ...]:
    """Check the key. Raises `InputError` naming the entry and what is wrong with it."""
    if value is None:
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, list | tuple) or len(value) > MAX_TOOLS:
        raise InputError(f"has to be a list of up to {MAX_TOOLS} tools", field="tools")
    return tuple(_entry(one, f"tools[{index}]") for index, one in enumerate(value))


def need_airflow(agents: Iterable[Any]) -> bool:
    """Whether one of the agents, as DAG authors write them, has tools that are made with Airflow's connections."""
    entries = [tool for agent in agents if isinstance(agent, Mapping) for tool in agent.get("tools") or ()]
    return any(isinstance(tool, Mapping) and not {"mcp", "toolset"}.isdisjoint(tool) for tool in entries)


def _entry(value: Any, place: str) -> ToolTerms:
    if isinstance(value, str):
        value = {"function": value}
    if not isinstance(value, Mapping):
        raise InputError("has to be the name of a function, package.module:name, or a dict", field=place)
    for key in value:
        if key not in _KEYS:
            raise InputError(f"is not known; allowed are {', '.join(_KEYS)}", field=f"{place}.{key}")
    sources: list[Source] = [name for name in ("function", "mcp", "toolset") if value.get(name) is not None]
    if len(sources) != 1:
        raise InputError("has to have exactly one of function, mcp and toolset", field=place)
    (source,) = sources
    name = value[source]
    if not isinstance(name, str) or not name.strip():
        raise InputError("has to be a name", field=f"{place}.{source}")
    if source != "mcp" and not _CODE.fullmatch(name):
        raise InputError(f"is {name!r}; it has to read package.module:name", field=f"{place}.{source}")
    arguments = value.get("arguments") or {}
    if not isinstance(arguments, Mapping) or (arguments and source != "toolset"):
        raise InputError("has to be a dict of what a toolset is made with", field=f"{place}.arguments")
    only = value.get("only") or ()
    if isinstance(only, str) or not all(isinstance(one, str) for one in only) or (only and source == "function"):
        raise InputError("has to be a list of names of a server's or toolset's tools", field=f"{place}.only")
    repeatable = value.get("repeatable", False)
    if not isinstance(repeatable, bool):
        raise InputError(f"has to be True or False, not {repeatable!r}", field=f"{place}.repeatable")
    # What a server offers is not the DAG author's own: without a word about it, people decide.
    approval = _approval(value.get("approval", "always" if source == "mcp" else "never"), f"{place}.approval")
    return ToolTerms(source, name, dict(arguments), tuple(only), approval, repeatable)


def _approval(value: Any, place: str) -> Approval:
    if value in ("never", "always"):
        return "never" if value == "never" else "always"
    if not isinstance(value, Mapping) or set(value) != {"unless"} or not isinstance(value["unless"], Mapping):
        raise InputError(
            'has to be "never", "always", or {"unless": …} with the JSON Schema of arguments that need no approval',
            field=place,
        )
    try:
        return JsonSchema(value["unless"])
    except SchemaFaultError as error:
        raise InputError(str(error), field=f"{place}.unless") from None
