"""Notifications of failures in a worker and in the triggerer of a real stack, by the system and by DAG callbacks."""

from collections.abc import Iterator

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import finished_run, start_run, wait_for_dag, wait_until
from tests.kit.runs import trigger
from tests.kit.servers.webhooks import SECRET, Answer, Receiver, receiving_beside

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ME = "/users/me/preferences"


@pytest.fixture
def receiver(backend: httpx.Client) -> Iterator[Receiver]:
    """A receiver that is a notification target of the administrator."""
    with receiving_beside() as receiver:
        events = ["run_failed", "alert", "budget_threshold"]
        hook = {"name": "hook", "url": receiver.url(), "secret": SECRET, "events": events}
        backend.put(ME, json={"notification_targets": [hook]}).raise_for_status()
        yield receiver
        backend.put(ME, json={}).raise_for_status()


@pytest.mark.parametrize("dag_id", ["notifying_in_worker", "notifying_deferrable"])
def test_a_failure_is_notified(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, receiver: Receiver, dag_id: str
) -> None:
    wait_for_dag(airflow, dag_id)
    openai_server.script("auth", times=None)
    receiver.script("/hook", Answer(503), Answer())
    accepted = trigger(backend, dag_id, {})
    run_id = accepted["dag_run_id"]
    wait_until(lambda: len({r.json["id"] for r in receiver.received}) == 4, timeout=90, what="four notifications")
    assert all(request.signed_with(SECRET) for request in receiver.received)
    assert len(receiver.received) == 5, "the first one twice"
    told = {(r.json["event"], r.json.get("alert", {}).get("message")): r.json for r in receiver.received}
    assert told.keys() == {
        ("run_failed", None),
        ("budget_threshold", None),
        ("alert", f"agent failed in {dag_id}"),
        ("alert", f"{run_id} is over: task_failure"),
    }
    assert {one["execution_id"] for one in told.values()} == {accepted["execution_id"]}
    assert [told[key]["error"]["category"] for key in told if key[0] != "budget_threshold"] == ["auth"] * 3
    failed = told["run_failed", None]
    assert (failed["user_id"], failed["state"], failed["error"]["task_id"]) == ("airflow", "failed", "agent")
    assert httpx.get(failed["status_url"]).json()["dag_run_id"] == run_id


def test_a_run_started_in_airflow_belongs_to_its_user(
    airflow: httpx.Client, openai_server: OpenAIServer, receiver: Receiver
) -> None:
    wait_for_dag(airflow, "notifying_in_worker")
    openai_server.script("auth", times=None)
    run_id = start_run(airflow, "notifying_in_worker")
    finished_run(airflow, "notifying_in_worker", run_id)
    wait_until(lambda: "run_failed" in receiver.events(), timeout=60, what="the notification")
    assert {request.json["dag_run_id"] for request in receiver.received} == {run_id}
