"""Checks a run's input before any agent is paid for it."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from backend.agents.images import load_image
from backend.agents.registry import AGENTS
from backend.agents.specs import parse_team
from backend.core.input_error import InputError
from backend.core.settings import get_settings
from backend.db import images
from backend.db.engine import task_engine


def check_picture(source: Any) -> dict[str, Any]:
    """Fetch and decode a picture; gives its facts. Raises `InputError` naming `image_url`."""
    if not isinstance(source, str) or not source.strip():
        raise InputError("is missing; give the address of a picture", field="image_url")
    settings = get_settings()
    picture = asyncio.run(load_image(source.strip(), settings, read_upload=_read_upload))
    return picture.facts.as_dict()


def plan_team(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The agents for a run of `multi_agent_workflow`, each with its input, all of it checked.

    Without `agents` the vision agent gets the picture and the text agent the text, or the question when there is
    neither. Raises `InputError` naming the parameter.
    """
    shared = {key: params[key] for key in ("query", "image_url", "text") if _given(params.get(key))}
    mode = params.get("orchestration_mode") or "parallel"
    if params.get("agents"):
        agents = [
            {**entry, "input_data": {**shared, **(entry.get("input_data") or {})}}
            if isinstance(entry, Mapping)
            else entry
            for entry in params["agents"]
        ]
    else:
        agents = _fitting(shared)
    for index, spec in enumerate(parse_team(agents, mode)):
        given = spec.input_data or {}
        # What an agent lacks may be in the results of those before it.
        if mode == "parallel" or (mode == "sequential" and index == 0) or (mode == "graph" and not spec.depends_on):
            AGENTS[spec.type].check_input(given)
        if spec.type == "vision" or (spec.type == "extraction" and given.get("image_url")):
            check_picture(given.get("image_url"))
    return agents


def _fitting(shared: dict[str, Any]) -> list[dict[str, Any]]:
    agents: list[dict[str, Any]] = []
    if "image_url" in shared:
        agents.append({"name": "vision", "type": "vision", "input_data": dict(shared)})
    if "text" in shared:
        agents.append({"name": "text", "type": "text", "input_data": dict(shared)})
    if not agents and "query" in shared:
        agents.append({"name": "text", "type": "text", "input_data": {**shared, "text": shared["query"]}})
    if not agents:
        raise InputError("is empty; give at least one of query, image_url and text", field="input_data")
    return agents


def _given(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


async def _read_upload(image_id: UUID) -> bytes | None:
    def read() -> bytes | None:
        with task_engine(get_settings().database_url).connect() as connection:
            image = images.get(connection, str(image_id))
        return image.content if image else None

    return await asyncio.to_thread(read)
