"""The backend is killed while a client follows a run; the stream loses nothing."""

import os
import signal
import time

import httpx
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack
from tests.kit.processes.stack_processes import pid_of
from tests.kit.runs import Event, check_order, events, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WORDS = " ".join(f"word{number}" for number in range(80))
TEXT = {"text": "Three boats lay at the pier."}


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
