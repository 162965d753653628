"""Checks a run's input before any agent costs money."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from backend.core.errors.input_error import InputError
from backend.core.settings import get_settings
from backend.db import images
from backend.db.engine import task_engine
from backend.observation.task_context import TaskContext
from backend.pictures.load import load_image
from backend.runtime.requested_team import plan_agents


def check_picture(source: Any, task: TaskContext) -> dict[str, Any]:
    """Fetch and decode a picture; returns its facts. Raises `InputError` naming `image_url`."""
    if not isinstance(source, str) or not source.strip():
        raise InputError("is missing; give the address of a picture", field="image_url")
    settings = get_settings()
    picture = asyncio.run(load_image(source.strip(), settings, read_upload=partial(_read_upload, task)))
    return picture.facts.as_dict()


def plan_team(params: Mapping[str, Any], task: TaskContext) -> list[dict[str, Any]]:
    """The agents for a run of `multi_agent_workflow`, each with its checked input.

    Raises `InputError` naming the parameter.
    """
    agents = plan_agents(params, max_text_chars=get_settings().max_text_chars)
    for agent in agents:
        source = agent["input_data"].get("image_url")
        if agent.get("type") == "vision" or (agent.get("type") == "extraction" and source):
            check_picture(source, task)
    return agents


async def _read_upload(task: TaskContext, image_id: UUID) -> bytes | None:
    def read() -> bytes | None:
        with task_engine(get_settings().database_url).connect() as connection:
            reader = replace(task, system=task.verified_values(connection)).upload_reader
            image = images.get(connection, str(image_id))
        return image.content if image is not None and reader.may_read(str(image_id), image.user_id) else None

    return await asyncio.to_thread(read)
