"""Opens a graph of a project that has an environment of its own."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from backend.checkpoints.batched_saver import BatchedSaver
from backend.core.process_secrets import secrets_in
from backend.core.settings import Settings
from backend.runtime.graphs.factory_arguments import Surroundings
from backend.runtime.langgraph_json import variables
from backend.runtime.projects.library import find_graph
from backend.runtime.remote.errors import ProjectProcessLostError
from backend.runtime.remote.graph import RemoteGraph
from backend.runtime.remote.hosts import Host

OPEN_SECONDS = 300.0
"""How long a project may take to be imported and to make its graph."""


async def open_graph(
    reference: str,
    *,
    around: Surroundings,
    settings: Settings,
    resources: AsyncExitStack,
    saver: BatchedSaver | None,
    name: str,
    shared: bool,
    hidden: list[str],
) -> RemoteGraph:
    """The graph `project/graph`, ready to run with our checkpointer, and with the store that is `around`.

    It is open as long as `resources`. The project's own secrets are added to what is `hidden`. Raises `GraphLoadError`,
    and `ProjectProcessLostError` and `TimeoutError` (a retry helps).
    """
    project, graph = find_graph(settings.projects_dir, reference)
    hidden.extend(secrets_in(variables(project.project())))
    host = Host(project, settings, shared=shared)
    opened: dict[str, Any] = {
        "graph": graph,
        "name": name,
        "config": {key: value for key, value in around.config.items() if key != "callbacks"},
        "context": around.context,
        "user": around.user,
    }
    made = RemoteGraph(host.connect, opened, saver, around.store)
    resources.push_async_callback(made.close)
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            return await made.open()
    except TimeoutError:
        raise TimeoutError(f"the project {project.name} took longer than {OPEN_SECONDS:g} s to be imported") from None
    except ProjectProcessLostError as error:
        raise ProjectProcessLostError(f"{error} was made: {host.log_excerpt()}") from None
