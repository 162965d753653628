"""Checks a run's input before any agent costs money."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from backend.core.errors.input_error import InputError
from backend.core.settings import get_settings
from backend.db import images
from backend.db.engine import task_engine
from backend.pictures.load import load_image
from backend.runtime.requested_team import plan_agents, shared_input


def check_picture(source: Any) -> dict[str, Any]:
    """Fetch and decode a picture; returns its facts. Raises `InputError` naming `image_url`."""
    if not isinstance(source, str) or not source.strip():
        raise InputError("is missing; give the address of a picture", field="image_url")
    settings = get_settings()
    picture = asyncio.run(load_image(source.strip(), settings, read_upload=_read_upload))
    return picture.facts.as_dict()


def plan_team(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The agents for a run of `multi_agent_workflow`, each with its checked input.

    Without `agents`, the vision agent receives the picture and the text agent the text, or the question if there is
    neither. Raises `InputError` naming the parameter.
    """
    arguments = dict(params) if params.get("agents") else {**params, "agents": _fitting(shared_input(params))}
    agents = plan_agents(arguments)
    for agent in agents:
        source = agent["input_data"].get("image_url")
        if agent.get("type") == "vision" or (agent.get("type") == "extraction" and source):
            check_picture(source)
    return agents


def _fitting(shared: dict[str, Any]) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = []
    if "image_url" in shared:
        agents.append({"name": "vision", "type": "vision"})
    if "text" in shared:
        agents.append({"name": "text", "type": "text"})
    if not agents and "query" in shared:
        agents.append({"name": "text", "type": "text", "input_data": {"text": shared["query"]}})
    if not agents:
        raise InputError("is empty; give at least one of query, image_url and text", field="input_data")
    return agents


async def _read_upload(image_id: UUID) -> bytes | None:
    def read() -> bytes | None:
        with task_engine(get_settings().database_url).connect() as connection:
            image = images.get(connection, str(image_id))
        return image.content if image else None

    return await asyncio.to_thread(read)
