"""Loads an agent's tools: functions, MCP servers' and common-ai's toolsets, all as LangChain tools."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from langchain_core.tools import BaseTool, StructuredTool

from backend.agents.tools.terms import Approval, ToolTerms
from backend.core.errors.input_error import InputError


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool, and the terms under which an agent may call it."""

    tool: BaseTool
    approval: Approval
    repeatable: bool

    def needs_approval(self, arguments: Mapping[str, Any]) -> bool:
        """Whether people have to approve a call with these arguments."""
        if isinstance(self.approval, str):
            return self.approval == "always"
        return not self.approval.is_valid(arguments)


class Toolsets(Protocol):
    """Airflow's toolsets, as LangChain tools. Both methods raise `InputError` naming `place`, and `ConnectionError`."""

    def of(self, toolset: Any, place: str) -> Sequence[BaseTool]: ...

    def of_server(self, connection: str, place: str) -> Sequence[BaseTool]:
        """The tools of the MCP server of an Airflow connection."""


_toolsets: Toolsets | None = None


def use_toolsets(toolsets: Toolsets) -> None:
    """Have Airflow's toolsets for all agents of this process."""
    global _toolsets
    _toolsets = toolsets


class Toolbox:
    """The tools of one agent. They are loaded when they are first needed, where the agent runs."""

    def __init__(self, terms: Sequence[ToolTerms]) -> None:
        self._terms = terms
        self._loaded: Mapping[str, OfferedTool] | None = None
        self._loading = asyncio.Lock()

    async def tools(self) -> Mapping[str, OfferedTool]:
        """The tools by name. Raises `InputError` naming the entry that can't be loaded, and `ConnectionError` for a
        server that doesn't answer (a retry helps)."""
        async with self._loading:
            if self._loaded is None:
                found: dict[str, OfferedTool] = {}
                for index, terms in enumerate(self._terms):
                    for tool in await asyncio.to_thread(_load, terms, f"agent_config.tools[{index}]"):
                        if tool.name in found:
                            raise InputError(f"has a second tool {tool.name!r}", field=f"agent_config.tools[{index}]")
                        found[tool.name] = OfferedTool(tool, terms.approval, terms.repeatable)
                self._loaded = found
        return self._loaded


def _load(terms: ToolTerms, place: str) -> list[BaseTool]:
    if terms.source == "function":
        return [_function(terms.name, f"{place}.function")]
    tools = _from_toolset(terms, place)
    missing = set(terms.only) - {tool.name for tool in tools}
    if missing:
        known = ", ".join(sorted(tool.name for tool in tools))
        raise InputError(f"{', '.join(sorted(missing))} is not among its tools: {known}", field=f"{place}.only")
    return [tool for tool in tools if not terms.only or tool.name in terms.only]


def _function(name: str, place: str) -> BaseTool:
    found = _imported(name, place)
    if isinstance(found, BaseTool):
        return found
    if not callable(found):
        raise InputError(f"{name} is no function, but {type(found).__name__}", field=place)
    if not (found.__doc__ or "").strip():
        raise InputError(f"{name} needs a docstring, which tells the model what it is for", field=place)
    given = {"coroutine": found} if asyncio.iscoroutinefunction(found) else {"func": found}
    try:
        return StructuredTool.from_function(**given)
    except Exception as error:  # its annotations may be anything
        raise InputError(f"{name} makes no tool: {error}", field=place) from error


def _from_toolset(terms: ToolTerms, place: str) -> list[BaseTool]:
    if _toolsets is None:
        raise InputError(f"needs Airflow: there are no {terms.source}s outside of its tasks", field=place)
    if terms.source == "mcp":
        return list(_toolsets.of_server(terms.name, f"{place}.mcp"))
    kind = _imported(terms.name, f"{place}.toolset")
    try:
        toolset = kind(**terms.arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{terms.name} can't be made: {error}", field=f"{place}.arguments") from error
    return list(_toolsets.of(toolset, f"{place}.toolset"))


def _imported(name: str, place: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{name} can't be imported: {error}", field=place) from error
