"""Service tokens, signing out everywhere and the audit log, from a shell."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import served
from tests.kit.processes.command_line import CommandLine


@pytest.fixture
def airflow() -> FakeAirflow:
    return FakeAirflow()


@pytest.fixture
async def address(app: FastAPI) -> AsyncIterator[str]:
    async with served(app) as address:
        yield address


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def shell_of(username: str, directory: Path, address: str) -> CommandLine:
    shell = CommandLine(made(directory), VISUAL_AI_URL=address)
    done = await shell.run("login", "--username", username, "--password-stdin", stdin=f"{PASSWORD}\n")
    assert done.code == 0, done.err
    return shell


async def test_tokens_are_created_used_listed_and_revoked(tmp_path: Path, address: str) -> None:
    ulla = await shell_of("ulla", tmp_path / "ulla", address)
    made = await ulla.run("tokens", "create", "nightly", "--scope", "read", "--scope", "trigger", "--days", "7")
    assert made.code == 0, made.err
    token = made.out.strip()
    assert token.startswith("lgf_")
    assert "it isn't shown again" in made.err
    used = await ulla.run("list", VISUAL_AI_TOKEN=token, XDG_CONFIG_HOME=str(tmp_path / "empty"))
    assert used.code == 0, used.err
    listed = await ulla.run("tokens", "list")
    assert token not in listed.out
    assert all(part in listed.out for part in ("nightly", "read trigger", "valid"))
    [entry] = [json.loads(line) for line in (await ulla.run("tokens", "list", "--json")).out.splitlines()]
    revoked = await ulla.run("tokens", "revoke", entry["id"])
    assert "Revoked the token 'nightly' of ulla." in revoked.err
    assert "revoked" in (await ulla.run("tokens", "list")).out
    refused = await ulla.run("list", VISUAL_AI_TOKEN=token, XDG_CONFIG_HOME=str(tmp_path / "empty"))
    assert refused.code == 2
    assert "was revoked" in refused.err


async def test_signing_out_everywhere(tmp_path: Path, address: str) -> None:
    laptop, desktop = [await shell_of("ulla", tmp_path / name, address) for name in ("laptop", "desktop")]
    anna = await shell_of("anna", tmp_path / "anna", address)
    assert (await laptop.run("logout", "--user", "anna")).code == 2
    done = await laptop.run("logout", "--everywhere")
    assert (done.code, done.out) == (0, ""), done.err
    assert [(await shell.run("tokens", "list")).code for shell in (laptop, desktop)] == [4, 4]
    assert (await laptop.run("login", "-u", "ulla", "--password-stdin", stdin=f"{PASSWORD}\n")).code == 0
    assert "Signed ulla out everywhere." in (await anna.run("logout", "--user", "ulla")).err
    assert (await laptop.run("tokens", "list")).code == 4


async def test_signing_out_revokes_the_token(tmp_path: Path, address: str) -> None:
    ulla = await shell_of("ulla", tmp_path / "ulla", address)
    kept = tmp_path / "ulla" / ".config" / "langgraph-flow" / "logins.json"
    token = json.loads(kept.read_text())[address]["token"]
    assert (await ulla.run("logout")).code == 0
    refused = await ulla.run("tokens", "list", VISUAL_AI_TOKEN=token)
    assert refused.code == 2
    assert "signed out" in refused.err


async def test_the_audit_log(tmp_path: Path, address: str) -> None:
    ulla, anna = [await shell_of(name, tmp_path / name, address) for name in ("ulla", "anna")]
    refused = await ulla.run("audit")
    assert refused.code == 2
    assert "Admin" in refused.err
    shown = await anna.run("audit", "--user", "ulla", "--since", "1h", "--outcome", "done")
    assert shown.code == 0, shown.err
    header, line = shown.out.splitlines()
    assert header.split()[:4] == ["WHEN", "USER", "ACTION", "OUTCOME"]
    assert all(part in line for part in ("ulla", "sign_in", "done", "127.0.0.1", "session:"))
    listed = await anna.run("audit", "--action", "sign_in", "--json", "-n", "1")
    [entry] = [json.loads(one) for one in listed.out.splitlines()]
    assert entry["user_id"] == "anna"
    assert (await anna.run("audit", "--since", "soon")).code == 2
