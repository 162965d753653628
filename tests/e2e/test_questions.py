"""Runs that wait for people: parked by Airflow, answered through the API or in Airflow, and resumed."""

import time
from typing import Any

import httpx
import pytest

from backend.services.questions import PARKED
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, wait_for_dag, wait_until
from tests.kit.runs import check_order, events, follow, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MODES = ("asking_in_worker", "asking_in_triggerer")


@pytest.fixture(scope="module", autouse=True)
def dags(airflow: httpx.Client, backend: httpx.Client) -> None:
    last = "asking_team"
    wait_for_dag(airflow, last)
    wait_until(lambda: backend.get(f"/workflows/{last}").is_success, timeout=30, what=f"{last} in the backend")


def questions(backend: httpx.Client, run: dict[str, Any], count: int = 1, **query: Any) -> list[dict[str, Any]]:
    """The run's open questions, as soon as there are so many and Airflow has parked the task."""

    def found() -> list[dict[str, Any]] | None:
        answer = backend.get("/questions", params={"dag_run_id": run["dag_run_id"], **query}).raise_for_status()
        listed: list[dict[str, Any]] = answer.json()["questions"]
        return listed if len(listed) == count else None

    return wait_until(found, timeout=60, poll=0.2, what=f"{count} questions of {run['dag_run_id']}")


def answer(backend: httpx.Client, question: dict[str, Any], **body: Any) -> httpx.Response:
    return backend.post(f"/questions/{question['question_id']}/answer", json=body)


def waits(backend: httpx.Client, run: dict[str, Any]) -> None:
    wait_until(lambda: snapshot(backend, run)["state"] == "awaiting_input", timeout=30, poll=0.2, what="awaiting_input")


def decide_in_airflow(airflow: httpx.Client, run: dict[str, Any], option: str) -> None:
    """Answer as a person does in Airflow's list of required actions, who first reads what is asked: Airflow fails a
    task that is answered before its scheduler has heard that the process which parked it has ended."""
    time.sleep(PARKED)
    path = f"/api/v2/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances/ask/-1/hitlDetails"
    airflow.patch(path, json={"chosen_options": [option]}).raise_for_status()


@pytest.mark.parametrize("dag_id", MODES)
def test_a_graph_asks_twice_and_holds_nothing_meanwhile(
    airflow: httpx.Client, backend: httpx.Client, dag_id: str
) -> None:
    run = trigger(backend, dag_id, {"graph": "looping", "age": 0})
    (first,) = questions(backend, run)
    assert (first["subject"], first["kind"], first["node"], first["agent"]) == (
        "What is your age?", "question", "collect", "looping",
    )  # fmt: skip
    waits(backend, run)

    def nothing_held() -> bool:
        pool = airflow.get("/api/v2/pools/default_pool").raise_for_status().json()
        return not (pool["occupied_slots"] or pool["running_slots"] or pool["deferred_slots"])

    wait_until(nothing_held, timeout=30, what="Airflow to park the task")
    taken = answer(backend, first, answer=42)
    assert (taken.status_code, taken.json()["state"]) == (200, "answered")
    late = answer(backend, first, answer=43)
    assert late.status_code == 409
    assert "has answered this question at" in late.json()["detail"]
    (second,) = questions(backend, run)
    assert second["subject"] == "And your name?"
    assert answer(backend, second, answer="Nora").is_success
    found = follow(backend, run)
    check_order(found)
    assert [one["subject"] for one in of_type(found, "question")] == ["What is your age?", "And your name?"]
    assert [one["by"] for one in of_type(found, "answer")] == ["airflow", "airflow"]
    now = snapshot(backend, run)
    assert now["state"] == "success", now["errors"]
    assert now["result"]["output"] == {"age": 42, "name": "Nora"}
    assert [task["try_number"] for task in now["tasks"]] == [1]


@pytest.mark.parametrize(("option", "ran"), [("Approve", True), ("Reject", False)])
def test_an_approval_is_given_in_airflow(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, option: str, ran: bool
) -> None:
    openai_server.script(tool_calls=[{"name": "send_email", "arguments": {"to": "ann@example.org", "body": "Hi"}}])
    given = {"graph": "middleware", "messages": [{"role": "user", "content": "Write to Ann."}]}
    run = trigger(backend, "asking_in_worker", given)
    (question,) = questions(backend, run)
    waits(backend, run)
    place = f"/api/v2/dags/asking_in_worker/dagRuns/{run['dag_run_id']}"
    (asked,) = airflow.get(f"{place}/hitlDetails").raise_for_status().json()["hitl_details"]
    assert asked["subject"] == "An agent waits for an answer"
    decide_in_airflow(airflow, run, option)
    follow(backend, run)
    now = snapshot(backend, run)
    assert now["state"] == "success", now["errors"]
    (told,) = [one["content"] for one in now["result"]["output"]["messages"] if one["type"] == "tool"]
    assert told.startswith("Sent to ann") == ran
    given_back = backend.get(f"/questions/{question['question_id']}").json()
    assert (given_back["answered_via"], given_back["decision"]) == ("airflow", option.lower())
    assert answer(backend, question, decision="approve").status_code == 409


def test_in_airflow_nobody_gives_an_answer_that_needs_words(airflow: httpx.Client, backend: httpx.Client) -> None:
    run = trigger(backend, "asking_in_worker", {"graph": "editing", "topic": "boats"})
    (question,) = questions(backend, run)
    waits(backend, run)
    decide_in_airflow(airflow, run, "Approve")
    path = f"/api/v2/dags/asking_in_worker/dagRuns/{run['dag_run_id']}/taskInstances/ask/-1/hitlDetails"
    wait_until(
        lambda: airflow.get(path).json()["responded_at"] is None,
        timeout=60,
        what="the next request",
    )
    assert answer(backend, question, answer="Edited.").is_success
    follow(backend, run)
    assert snapshot(backend, run)["result"]["output"]["draft"] == "Edited."


def test_in_a_team_one_waits_and_the_others_go_on(backend: httpx.Client) -> None:
    run = trigger(backend, "asking_team", {"query": "What is there?"})
    (question,) = questions(backend, run)
    states = {row["agent"]: row["state"] for row in snapshot(backend, run)["agents"] if row["node"] is None}
    assert states == {"asker": "awaiting_input", "reader": "success"}
    waits(backend, run)
    told = next(event for event in events(backend, run["stream_url"]) if event.type == "question")
    assert told.data["question_id"] == question["question_id"], "who comes later sees what is open"
    assert answer(backend, question, answer="Edited.").is_success
    follow(backend, run)
    assert snapshot(backend, run)["result"]["results"]["asker"]["draft"] == "Edited."


def test_nobody_answers_in_time(backend: httpx.Client) -> None:
    run = trigger(backend, "asking_in_vain", {})
    follow(backend, run)
    assert snapshot(backend, run)["result"]["output"]["draft"] == "Nobody's draft."
    (question,) = questions(backend, run, state="answered")
    assert (question["answered_by"], question["answered_via"]) == (None, "timeout")


def test_an_answer_while_airflow_is_away_is_not_lost(stack: RunningStack, backend: httpx.Client) -> None:
    from tests.kit.processes.stack_processes import program_stopped

    run = trigger(backend, "asking_in_worker", {"graph": "editing", "topic": "boats"})
    (question,) = questions(backend, run)
    waits(backend, run)
    with program_stopped(stack, "api-server"):
        assert answer(backend, question, answer="Edited.").is_success
    follow(backend, run)
    assert snapshot(backend, run)["result"]["output"]["draft"] == "Edited."


def test_a_tool_is_called_once_a_person_has_approved(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    openai_server.script(tool_calls=[{"name": "pay", "arguments": {"to": "Ann", "amount": 5}}])
    openai_server.script(content="Ann has been paid.")
    run = trigger(backend, "asking_tool", {})
    (question,) = questions(backend, run)
    assert question["kind"] == "approval"
    waits(backend, run)
    calls = f"/workflow-status/asking_tool/{run['dag_run_id']}/tool-calls"
    assert backend.get(calls).json()["tool_calls"] == []
    assert answer(backend, question, decision="approve").status_code == 200
    check_order(follow(backend, run))
    now = snapshot(backend, run)
    assert (now["state"], now["result"]["output"]["answer"]) == ("success", "Ann has been paid.")
    (call,) = backend.get(calls).json()["tool_calls"]
    assert (call["tool"], call["state"], call["arguments"]) == ("pay", "success", {"to": "Ann", "amount": 5})
    assert len(openai_server.requests) == 2, "what was asked before the approval is not asked again"
