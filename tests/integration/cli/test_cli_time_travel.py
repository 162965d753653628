"""Checkpoints, forks and comparisons from a shell."""

import json
from pathlib import Path

from backend.core.settings import Settings
from backend.db.engine import Database
from backend.runtime.specs import parse_agent
from tests.integration.cli.test_cli_tokens import address, airflow, shell_of
from tests.kit.airflow import FakeAirflow
from tests.kit.fixtures.forks import DAG, ForkableRuns

__all__ = ["address", "airflow"]  # fixtures


async def test_time_travel(
    tmp_path: Path, address: str, airflow: FakeAirflow, task_settings: Settings, database: Database
) -> None:
    import httpx

    airflow.fail("/dags/~/")
    async with httpx.AsyncClient(base_url=address) as http:
        runs = ForkableRuns(http, airflow, task_settings, database)
        ulla = await shell_of("ulla", tmp_path / "ulla", address)
        started = await ulla.run("run", DAG, "--input", "topic=boats", "--json")
        assert started.code == 0, started.err
        run = json.loads(started.out)["dag_run_id"]
        spec = parse_agent(None, {"topic": "boats"}, graph="tests.kit.graphs.forked:routed")
        await runs.run(run, spec)
        listed = await ulla.run("checkpoints", DAG, run, "task")
        assert listed.code == 0, listed.err
        lines = listed.out.splitlines()
        assert lines[0].split() == ["CHECKPOINT", "AGENT", "STEP", "WROTE", "NEXT", "AT", "BYTES"]
        assert len(lines) == 5
        shown = await ulla.run("checkpoints", DAG, run, "task", "--show", lines[2].split()[0])
        assert json.loads(shown.out)["outline"] == "BOATS", shown.err
        values = tmp_path / "values.json"
        values.write_text('{"outline": "SAILS"}')
        forked = await ulla.run("fork", DAG, run, "task", "--node", "answer", "--values", str(values))
        assert forked.code == 0, forked.err
        new = forked.out.strip()
        assert (await runs.run(new, spec))["output"]["draft"] == "About SAILS."
        wrong = await ulla.run("fork", DAG, run, "task", "--node", "nobody")
        assert (wrong.code, "answer, choose" in wrong.err) == (2, True)
        compared = await ulla.run("compare", f"{DAG}/{run}", f"{DAG}/{new}")
        assert compared.code == 0, compared.err
        assert "choose" in compared.out
        assert 'result/output/draft: "About BOATS." → "About SAILS."' in compared.out
        assert (await ulla.run("compare", run, new)).code == 2
