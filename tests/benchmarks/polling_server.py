"""The simplest alternative: a stream that polls Airflow once a second for each client.

`python -m tests.benchmarks.polling_server` serves it. It counts what it asks; `GET /requests` tells.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import typer
import uvicorn
from fastapi import FastAPI
from sse_starlette import EventSourceResponse

INTERVAL = 1.0


def make(airflow_url: str, token: str) -> FastAPI:
    """The application."""
    app = FastAPI()
    asked = 0
    http = httpx.AsyncClient(base_url=airflow_url, headers={"Authorization": f"Bearer {token}"}, timeout=60)

    async def get(path: str) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        answer = (await http.get(path)).raise_for_status().json()
        assert isinstance(answer, dict)
        return answer

    @app.get("/stream/{dag_id}/{run_id}")
    async def stream(dag_id: str, run_id: str) -> EventSourceResponse:
        async def events() -> AsyncIterator[dict[str, str]]:
            seen: dict[str, str] = {}
            while True:
                try:
                    run = await get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
                    tasks = await get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")
                except httpx.HTTPError:  # Airflow is overloaded
                    await asyncio.sleep(INTERVAL)
                    continue
                for task in tasks["task_instances"]:
                    name = f"{task['task_id']} {task['map_index']}"
                    if task["state"] and seen.get(name) != task["state"]:
                        seen[name] = task["state"]
                        data = {
                            "task_id": task["task_id"], "state": task["state"],
                            "started_at": task["start_date"], "finished_at": task["end_date"],
                        }  # fmt: skip
                        yield {"event": "task_update", "data": json.dumps(data)}
                if run["state"] in ("success", "failed"):
                    return
                await asyncio.sleep(INTERVAL)

        return EventSourceResponse(events(), sep="\n")

    @app.get("/requests")
    async def requests() -> int:
        return asked

    return app


def main(
    airflow_url: Annotated[str, typer.Option()],
    token: Annotated[str, typer.Option(envvar="POLLING_TOKEN")],
    port: Annotated[int, typer.Option()],
) -> None:
    """Serve."""
    uvicorn.run(make(airflow_url, token), host="127.0.0.1", port=port, log_level="critical")


if __name__ == "__main__":
    typer.run(main)
