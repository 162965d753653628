"""Runs with a model behind OpenAI's protocol: streamed tokens, cost, requests and rejections."""

import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import OPENAI_KEY
from tests.kit import pictures
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack
from tests.kit.runs import check_order, follow, of_type, snapshot, trigger, upload

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MODEL = "openai:gpt-4.1-mini"
ANSWER = " ".join(f"The {word} of the invoice stands in its last line." for word in ("total", "sum", "amount", "price"))


def test_tokens_are_streamed_and_their_cost_is_recorded(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    usage = {"input_tokens": 1_000, "output_tokens": 50}
    openai_server.script(content=ANSWER, usage=usage, token_delay=0.04, model="gpt-4.1-mini")
    picture = upload(backend, pictures.encode(pictures.photo(5000, 3000), "JPEG"), "large.jpg")
    given = {"query": "What is the total?", "image_url": picture}
    accepted = trigger(backend, "visual_ai_workflow", given, model=MODEL)
    found = follow(backend, accepted)
    check_order(found)

    texts = [data["text"] for data in of_type(found, "token")]
    assert "".join(texts) == ANSWER
    assert len(texts) > 5, "it came in one piece"
    assert {data["node"] for data in of_type(found, "token")} == {"analyse"}

    now = snapshot(backend, accepted)
    assert now["result"]["output"]["answer"] == ANSWER
    assert now["result"]["output"]["offline"] is False
    assert now["result"]["model"] == MODEL
    assert now["usage"] == now["result"]["usage"] == usage
    cost = 1_000 * 0.40e-6 + 50 * 1.60e-6  # OpenAI's price list: US dollars per token
    assert now["cost_usd"] == pytest.approx(cost)
    assert now["result"]["cost_usd"] == pytest.approx(cost)
    agent = next(agent for agent in now["agents"] if agent["node"] is None)
    assert (agent["model"], agent["input_tokens"], agent["output_tokens"]) == (MODEL, 1_000, 50)
    performance = backend.get("/monitoring/agent-performance").json()["agents"]
    assert next(entry for entry in performance if entry["model"] == MODEL)["cost_usd"] >= cost * 0.99

    (request,) = openai_server.requests
    assert request.stream
    assert "What is the total?" in request.prompt
    assert request.image_pixels == [(2048, 1229)]


def test_a_bare_name_is_a_model_of_openai(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    openai_server.script(content="Seven boats.")
    accepted = trigger(backend, "multi_agent_workflow", {"text": "Seven boats lay there."}, model="gpt-4.1-nano")
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert now["result"]["results"]["text"]["answer"] == "Seven boats."
    assert {request.model for request in openai_server.requests} == {"gpt-4.1-nano"}
    assert now["cost_usd"] > 0


def test_a_rejected_key_fails_at_once_and_is_not_shown(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    error = {
        "message": f"Incorrect API key provided: {OPENAI_KEY}. You can find your API key at https://platform.openai.com.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }
    openai_server.script("auth", times=None, error=error)
    started = time.monotonic()
    accepted = trigger(backend, "visual_ai_workflow", {"image_url": "sample://invoice"}, model=MODEL)
    found = follow(backend, accepted)
    assert time.monotonic() - started < 20
    check_order(found)
    assert len(openai_server.requests) == 1

    now = snapshot(backend, accepted)
    assert now["state"] == "failed"
    assert now["result"] is None
    tasks = {task["task_id"]: task for task in now["tasks"]}
    assert (tasks["analyse_image"]["state"], tasks["analyse_image"]["try_number"]) == ("failed", 1)
    assert tasks["store_result"]["state"] == "upstream_failed"
    (recorded,) = now["errors"]
    assert of_type(found, "error") == [{**recorded}]
    assert (recorded["category"], recorded["action"], recorded["model"]) == ("auth", "fail", MODEL)
    assert recorded["agent"] == "vision"
    assert "Incorrect API key" in recorded["message"]

    for text in (str(now), str(found), *map(_read, _logs(stack))):
        assert OPENAI_KEY not in text


def _logs(stack: RunningStack) -> list[Path]:
    places = (stack.state / "logs", stack.state / "airflow" / "logs")
    return [path for place in places for path in place.rglob("*.log")]


def _read(path: Path) -> str:
    return path.read_text(errors="replace")
