"""What a project's graphs take and do, found out by importing them: `python -m backend.runtime.projects.describe FILE`.

This runs in a process of its own, because it executes the project's code: an import may fail, hang, print, or leave
things behind. The description is printed as the last line of the output, in JSON.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from backend.runtime.langgraph_json import read_project
from backend.runtime.projects.flow_settings import FlowSettings, flow_settings
from langgraph_flow_host.describe import description

MARK = "graphs: "
"""What the line with the description begins with; the project's own code may print, too."""


async def describe(file: Path) -> dict[str, Any]:
    """The description of each graph of a project, or the `error` of one that can't be loaded."""
    project = read_project(file)
    settings = flow_settings(project)
    return {name: await _described(name, file, settings[name]) for name in project.graphs}


async def _described(name: str, file: Path, settings: FlowSettings) -> dict[str, Any]:
    from langchain_core.runnables import RunnableConfig
    from langgraph.store.memory import InMemoryStore

    from backend.runtime.graphs.factory_arguments import Surroundings
    from backend.runtime.graphs.load import load_graph

    try:
        async with AsyncExitStack() as resources:
            context = settings.context or None
            config: RunnableConfig = {"configurable": dict(settings.configurable)}
            around = Surroundings(config, context, InMemoryStore(), None, reading=context is None)
            graph = await load_graph(
                name, around=around, project_file=str(file), resources=resources, saver=None, name=name
            )
            return description(graph)
    except Exception as error:  # whatever the project's code raises says why its graph can't be run
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(asyncio.run(describe(Path(sys.argv[1]))))}\n")
