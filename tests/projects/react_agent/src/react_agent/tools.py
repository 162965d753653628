"""The tools of the agent."""

import os
from collections.abc import Callable
from typing import Any

from langgraph.runtime import get_runtime

from .context import Context


async def search(query: str) -> dict[str, Any]:
    """Search the catalogue of the harbour."""
    runtime = get_runtime(Context)
    greeting = os.environ["TOOL_GREETING"]
    return {"results": [f"{greeting}: {query} {n}" for n in range(runtime.context.max_search_results)]}


TOOLS: list[Callable[..., Any]] = [search]
