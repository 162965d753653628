"""The tools: one for each workflow that the caller may start, and one that looks at a run."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from backend.api.workflow_status import snapshot_response
from backend.core.problems import FieldError, Forbidden, Invalid, NotFound
from backend.core.roles import Principal, covers
from backend.core.states import TERMINAL_RUN_STATES
from backend.services.application import Application
from backend.services.triggering.catalog import Workflow
from backend.services.triggering.request import TriggerRequest

GET_RUN = "get_run"

MAX_WAIT = 300.0
"""Seconds that a call waits for its run."""
REPORT_EVERY = 5.0
"""Seconds between two reports of progress, which keep a client from giving up."""

NAME_CHARS = 64
"""What models' providers allow for a tool's name."""

_RUN_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "dag_id": {"type": "string", "description": "The workflow's id, from the tool's result"},
        "dag_run_id": {"type": "string", "description": "The run's id, from the tool's result"},
        "wait": {
            "type": "number",
            "minimum": 0,
            "maximum": MAX_WAIT,
            "default": 30,
            "description": "Seconds to wait for the run's end",
        },
    },
    "required": ["dag_id", "dag_run_id"],
}

_SHOWN = (
    *("dag_id", "dag_run_id", "state", "progress", "reason", "result", "cost_usd", "status_url", "airflow_url"),
    *("questions", "errors"),
)
"""What of a run's snapshot a model gets to see."""

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""Takes the progress so far, its total and a message."""


class UnknownToolError(LookupError):
    """There is no such tool for this caller."""


class Tools:
    """Lists tools and calls them, for whoever asks.

    Listing costs what `GET /workflows` costs. A call costs a trigger and, every few seconds, the start of a stream.
    """

    def __init__(self, application: Application) -> None:
        self._app = application

    async def list(self, who: Principal) -> list[Tool]:
        """The caller's tools."""
        return [_run_tool(), *(_tool(name, workflow) for name, workflow in (await self._named(who)).items())]

    async def call(self, who: Principal, name: str, arguments: Mapping[str, Any], report: Report) -> CallToolResult:
        """Call a tool. Raises `UnknownToolError`, and the problems of the API."""
        if name == GET_RUN:
            dag_id, dag_run_id, wait = _place(arguments)
            if wait:
                self._app.streams.check_room(who)
            return await self._run(who, dag_id, dag_run_id, wait, report)
        self._app.streams.check_room(who)
        dag_id = name if await self._is_startable(who, name) else await self._dag_id(who, name)
        started = await self._app.triggers.trigger(who, TriggerRequest(dag_id, dict(arguments)))
        return await self._run(who, started.dag_id, started.dag_run_id, MAX_WAIT, report)

    async def _named(self, who: Principal) -> dict[str, Workflow]:
        """The workflows that the caller may start, by their tools' names."""
        found = [
            workflow
            for workflow in await self._app.catalog.list_all(who)
            if workflow.import_error is None and covers(who.rights.starts, workflow.dag_id)
        ]
        return names_of(found)

    async def _is_startable(self, who: Principal, dag_id: str) -> bool:
        """Whether a tool's name is that of a workflow, for which not all of them have to be listed."""
        if not _is_name(dag_id) or not covers(who.rights.starts, dag_id):
            return False
        try:
            await self._app.catalog.get(dag_id, who)
        except (NotFound, Forbidden):
            return False
        return True

    async def _dag_id(self, who: Principal, name: str) -> str:
        workflow = (await self._named(who)).get(name)
        if workflow is None:
            raise UnknownToolError(f"There is no tool {name!r}.")
        return workflow.dag_id

    async def _run(self, who: Principal, dag_id: str, dag_run_id: str, wait: float, report: Report) -> CallToolResult:
        """The run, once it has ended, asks people, or has taken too long."""
        until = time.monotonic() + wait
        while True:
            run = json.loads(bytes((await snapshot_response(who, dag_id, dag_run_id, self._app)).body))
            ended = run["state"] in TERMINAL_RUN_STATES
            left = until - time.monotonic()
            if ended or run["state"] == "awaiting_input" or left <= 0 or self._app.streams.closing:
                return _result(run)
            await report(run["progress"], 100, run["state"])
            await self._pass(who, dag_id, dag_run_id, min(REPORT_EVERY, left))

    async def _pass(self, who: Principal, dag_id: str, dag_run_id: str, seconds: float) -> None:
        """Let some time pass, or less if the run ends."""
        until = time.monotonic() + seconds
        if not await self._app.streams.has_ended(who, dag_id, dag_run_id, within=seconds):
            await asyncio.sleep(max(0.0, until - time.monotonic()))  # as where no further stream can be served


def names_of(workflows: Sequence[Workflow]) -> dict[str, Workflow]:
    """The workflows by their tools' names: their ids, or where those can't be names, something close to them."""
    found = {workflow.dag_id: workflow for workflow in workflows if _is_name(workflow.dag_id)}
    for workflow in sorted(workflows, key=lambda one: one.dag_id):
        if _is_name(workflow.dag_id):
            continue
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", workflow.dag_id)[:NAME_CHARS]
        name, count = plain, 1
        while name in found or name == GET_RUN:
            count += 1
            name = f"{plain[: NAME_CHARS - len(str(count)) - 1]}_{count}"
        found[name] = workflow
    return found


def _is_name(dag_id: str) -> bool:
    return re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAME_CHARS}}}", dag_id) is not None and dag_id != GET_RUN


def _tool(name: str, workflow: Workflow) -> Tool:
    says = workflow.description or f"Runs the workflow {workflow.dag_id}."
    paused = " It is paused: a run waits until somebody unpauses it." if workflow.paused else ""
    return Tool(
        name=name,
        title=workflow.display_name,
        description=says + paused,
        input_schema={"type": "object", **workflow.schema},
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True),
    )


def _run_tool() -> Tool:
    return Tool(
        name=GET_RUN,
        title="Get a run",
        description="Returns the state of a run, and its result once it has ended.",
        input_schema=_RUN_SCHEMA,
        annotations=ToolAnnotations(read_only_hint=True),
    )


def _place(arguments: Mapping[str, Any]) -> tuple[str, str, float]:
    errors = [
        FieldError(f"/{name}", "has to be a text")
        for name in ("dag_id", "dag_run_id")
        if not isinstance(arguments.get(name), str) or not arguments[name]
    ]
    wait = arguments.get("wait", 30)
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT:
        errors.append(FieldError("/wait", f"has to be a number from 0 to {MAX_WAIT:g}"))
    if errors:
        raise Invalid("; ".join(f"{error.pointer} {error.detail}" for error in errors), errors=errors)
    return arguments["dag_id"], arguments["dag_run_id"], float(wait)


def _result(run: Mapping[str, Any]) -> CallToolResult:
    shown = {name: run[name] for name in _SHOWN if run.get(name) not in (None, [])}
    text = json.dumps(shown, ensure_ascii=False)
    failed = run["state"] in TERMINAL_RUN_STATES and run["state"] != "success"
    return CallToolResult(content=[TextContent(text=text)], structured_content=shown, is_error=failed)
