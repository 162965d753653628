"""Requests of every shape that the OpenAPI document allows, and of many that it doesn't: Schemathesis, as one caller.

Schemathesis needs an older `jsonschema-rs` than the product, so it has an environment of its own, `.venv-fuzzing`, from
a lock of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, served, sign_in
from tests.kit.processes.stack import ROOT

LOCK = Path(__file__).with_name("fuzzing.lock")
ENVIRONMENT = ROOT / ".venv-fuzzing"

DOCUMENT = ROOT / "frontend" / "src" / "shared" / "api" / "openapi.json"
"""The OpenAPI document, which a test compares with the application's."""

CALLERS = ("nobody", "victor", "ulla", "otto", "anna")
DAG = "visual_ai_workflow"

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip

ENDS_SESSIONS = "^/auth/logout$|/sign-out$"
"""Callers that are signed in leave these out: whatever followed would be answered with 401."""


@dataclass
class Fuzzed:
    """What became of the requests."""

    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def schemathesis() -> Path:
    """The command, installed if need be. Raises `CalledProcessError` without a registry."""
    command, note = ENVIRONMENT / "bin" / "st", ENVIRONMENT / "installed.lock"
    if not note.exists() or note.read_text() != LOCK.read_text():
        uv = str(Path(sys.executable).with_name("uv"))
        for arguments in (["venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
                          ["pip", "sync", "-q", "--require-hashes", "--python", str(ENVIRONMENT / "bin" / "python"),
                           str(LOCK)]):  # fmt: skip
            subprocess.run([uv, *arguments], check=True, capture_output=True)
        note.write_text(LOCK.read_text())
    return command


@asynccontextmanager
async def fuzzed_backend(database_url: str, **changes: Any) -> AsyncIterator[str]:
    """The address of a backend, with a run, and without limits on how many runs are started."""
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    settings = {**PRODUCTION, "trigger_rate_per_minute": 1_000_000, **changes}
    async with application(database_url, airflow, **settings) as app, served(app) as url:
        async with httpx.AsyncClient(base_url=url) as http:
            ulla = await sign_in(http, "ulla")
            body = {"dag_id": DAG, "input_data": {"query": "x", "image_url": "sample://invoice"}}
            (await http.post("/workflows/trigger", json=body, headers=ulla)).raise_for_status()
        yield url


async def fuzz(
    url: str, caller: str, directory: Path, *, examples: int, phases: str = "examples,coverage,fuzzing,stateful"
) -> Fuzzed:
    """Send requests as `caller`: in the phases that are random, `examples` for each operation. The same each time."""
    options = ["--max-examples", str(examples), "--seed", "1", "--phases", phases, "--checks", ",".join(CHECKS),
               "--continue-on-failure", "--request-timeout", "30", "--no-shrink", "--suppress-health-check", "all",
               "--warnings", "off"]  # fmt: skip
    if caller != "nobody":
        async with httpx.AsyncClient(base_url=url) as http:
            token = (await sign_in(http, caller))["Authorization"]
        options += ["-H", f"Authorization: {token}", "--exclude-path-regex", ENDS_SESSIONS]
    report, command = directory / f"{caller}.ndjson", await asyncio.to_thread(schemathesis)
    process = await asyncio.create_subprocess_exec(
        str(command), "run", str(DOCUMENT), "--url", url, *options, "--report-ndjson-path", str(report),
        cwd=directory, env={**os.environ, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    found = await asyncio.to_thread(_read, report)
    if process.returncode not in (0, 1):  # 1: a check has failed
        found.failures.append(output.decode()[-2_000:])
    return found


def _read(report: Path) -> Fuzzed:
    found = Fuzzed()
    for line in report.read_text().splitlines():
        [(kind, event)] = json.loads(line).items()
        if "Error" in kind:
            found.failures.append(f"{kind}: {json.dumps(event)[:2_000]}")
        if kind != "ScenarioFinished":
            continue
        recorded = event["recorder"]
        for case, interaction in recorded.get("interactions", {}).items():
            found.cases += 1
            response = interaction.get("response")
            about = f"{interaction['request']['method']} {interaction['request']['uri'][:500]}"
            found.statuses[str(response["status_code"]) if response else "none"] += 1
            if response is None:
                found.failures.append(f"{about}: no response")
            for check in recorded.get("checks", {}).get(case, ()):
                if check["status"] != "success":
                    found.failures.append(f"{about}: {json.dumps(check)[:2_000]}")
    return found
