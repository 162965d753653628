"""Tools that agents get through Airflow: common-ai's toolsets, and MCP servers by their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowNotFoundException

from backend.core.errors.input_error import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.tools import BaseTool

__all__ = ["AirflowToolsets"]


class AirflowToolsets:
    """Makes LangChain tools of toolsets. Blocks until a server has said which tools it has."""

    def of(self, toolset: Any, place: str) -> Sequence[BaseTool]:
        """The tools of a toolset. Raises `InputError` naming `place`, and `ConnectionError`, after which a retry
        helps."""
        from airflow.providers.common.ai.toolsets.langchain_bridge import airflow_toolset_to_langchain_tools
        from pydantic_ai.toolsets.abstract import AbstractToolset

        if not isinstance(toolset, AbstractToolset):
            raise InputError(f"is no toolset, but {type(toolset).__name__}", field=place)
        try:
            return airflow_toolset_to_langchain_tools(toolset)
        except AirflowNotFoundException as error:
            raise InputError(str(error), field=place) from error
        except Exception as error:
            raise ConnectionError(f"{place} doesn't say which tools there are: {error}") from error

    def of_server(self, connection: str, place: str) -> Sequence[BaseTool]:
        """The tools of the MCP server of a connection. Raises the same."""
        from airflow.providers.common.ai.toolsets.mcp import MCPToolset

        return self.of(MCPToolset(connection), place)
