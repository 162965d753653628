"""Processes die in the middle of the work; runs end well and streams lose nothing."""

import os
import signal
import time

import httpx
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit.openai_server import OpenAIServer
from tests.kit.runs import Event, check_order, events, follow, of_type, snapshot, trigger
from tests.kit.stack import RunningStack, finished_run, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORDS = " ".join(f"word{number}" for number in range(80))
TEXT = {"text": "Three boats lay at the pier."}


def pid_of(stack: RunningStack, name: str) -> int:
    def ask() -> int | None:
        lines = [line for line in stack.command("status").stdout.splitlines() if " pid " in line]
        return next((int(line.split()[3].rstrip(",")) for line in lines if line.split()[0] == name), None)

    return wait_until(ask, timeout=60, what=f"the process {name}")


def test_a_client_resumes_after_the_backend_was_killed(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(content=WORDS, token_delay=0.1, model="gpt-4.1-mini")
    victim = pid_of(stack, "backend")
    accepted = trigger(backend, "multi_agent_workflow", TEXT, model="gpt-4.1-mini")
    found: list[Event] = []
    broken = 0
    deadline = time.monotonic() + 90
    while not found or found[-1].type != "end":
        assert time.monotonic() < deadline
        try:
            for event in events(backend, accepted["stream_url"], after=(found[-1].seq if found else 0)):
                found.append(event)
                if not broken and len(of_type(found, "token")) == 5:
                    os.kill(victim, signal.SIGKILL)
        except httpx.TransportError:
            broken += 1
            time.sleep(0.3)
    assert broken > 0
    check_order(found)
    tokens = [data["text"] for data in of_type(found, "token") if data["agent"] == "text"]
    assert "".join(tokens) == WORDS
    now = snapshot(backend, accepted)
    assert now["state"] == "success"
    url = plain_url(stack.specification("backend")["VISUAL_AI_DATABASE_URL"])
    with psycopg.connect(url) as connection:
        stored = connection.execute(
            "SELECT seq, event_type FROM visual_ai.workflow_events WHERE execution_id = %s ORDER BY seq",
            [now["execution_id"]],
        ).fetchall()
    assert stored == [(event.seq, event.type) for event in found]


def test_a_run_outlives_the_scheduler(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(content=WORDS, token_delay=0.05, model="gpt-4.1-mini")
    victim = pid_of(stack, "scheduler")
    accepted = trigger(backend, "multi_agent_workflow", TEXT, model="gpt-4.1-mini")
    for event in events(backend, accepted["stream_url"], after=0):
        if event.type == "token":
            break
    os.kill(victim, signal.SIGKILL)
    run = finished_run(airflow, "multi_agent_workflow", accepted["dag_run_id"], timeout=120)
    assert run["state"] == "success"
    wait_until(
        lambda: snapshot(backend, accepted)["state"] == "success", timeout=15, what="the record of the end"
    )  # fmt: skip
    found = follow(backend, accepted)
    check_order(found)
    now = snapshot(backend, accepted)
    # The task's process may be lost with the scheduler; its next try goes on from the checkpoints.
    assert now["result"]["results"]["text"]["answer"] == WORDS
    assert len([request for request in openai_server.requests if "Three boats" in request.prompt]) <= 2
    assert {task["state"] for task in now["tasks"]} == {"success"}
    assert pid_of(stack, "scheduler") != victim
