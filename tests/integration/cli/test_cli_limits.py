"""An operator's limits, from a shell."""

import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import served
from tests.kit.documents.snippets import snippet
from tests.kit.processes.command_line import CommandLine


@pytest.fixture
def airflow() -> FakeAirflow:
    return FakeAirflow()


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as address:
        yield address


async def test_limits_are_set_listed_and_removed(tmp_path: Path, address: str) -> None:
    shells = {}
    for name in ("anna", "ulla"):
        (tmp_path / name).mkdir()
        shells[name] = CommandLine(tmp_path / name, VISUAL_AI_URL=address)
        done = await shells[name].run("login", "--username", name, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert done.code == 0, done.err
    anna, ulla = shells["anna"], shells["ulla"]
    made = await anna.run("limits", "set", "user:ulla", "cost_usd", "2.5", "--per", "day")
    assert made.code == 0, made.err
    assert "Set the limit 'user:ulla.cost_usd.day'." in made.err
    assert (await anna.run("limits", "set", "each_user", "streams", "3", "--id", "tabs")).code == 0
    listed = await anna.run("limits", "list")
    assert [line.split()[:4] for line in listed.out.splitlines()] == [
        ["ID", "FOR", "KIND", "PER"],
        ["tabs", "each_user", "streams", "3"],
        ["user:ulla.cost_usd.day", "user:ulla", "cost_usd", "day"],
    ]
    mine = await ulla.run("limits", "list", "--mine", "--json")
    assert [json.loads(line)["id"] for line in mine.out.splitlines()] == ["tabs", "user:ulla.cost_usd.day"]
    for refused in (await ulla.run("limits", "list"), await ulla.run("limits", "remove", "tabs")):
        assert refused.code != 0
        assert "role" in refused.err
    wrong = await anna.run("limits", "set", "ulla", "tokens", "5")
    assert wrong.code != 0
    assert "user:<name>" in wrong.err
    for line in snippet("limit-commands").splitlines():
        done = await anna.run(*shlex.split(line.removeprefix("python -m backend ")))
        assert done.code == 0, done.err
    assert "total" in done.out
    assert "Removed the limit 'tabs'." in (await anna.run("limits", "remove", "tabs")).err
    assert "tabs" not in (await anna.run("limits", "list")).out
