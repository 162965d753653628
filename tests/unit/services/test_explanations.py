"""Why a run failed, from what Airflow 3.3 says about its end. The evidence is as a real Airflow wrote it."""

import json
from datetime import timedelta
from typing import Any

import pytest

from backend.services.recording import explanations
from backend.services.recording.explanations import Explanation, LogFindings

Json = dict[str, Any]

RUN: Json = {
    "dag_id": "reports",
    "dag_run_id": "run",
    "state": "failed",
    "conf": {},
    "note": None,
    "start_date": "2026-11-29T08:42:42.378810Z",
    "end_date": "2026-11-29T08:42:50.874519Z",
}


def task(**changes: Any) -> Json:
    return {
        "task_id": "work",
        "map_index": -1,
        "try_number": 1,
        "state": "failed",
        "start_date": "2026-11-29T08:42:46.067820Z",
        "hostname": "worker-1",
        "operator": "PythonOperator",
        "queue": "default",
        "note": None,
        **changes,
    }


def event(name: str, extra: Any = None, **more: Any) -> Json:
    text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return {"event": name, "run_id": "run", "dag_id": "reports", "owner": "anna", "extra": text, **more}


def of_task(name: str, extra: Any = None, **more: Any) -> Json:
    return event(name, extra, **{"task_id": "work", "map_index": -1, "try_number": 1, "owner": None, **more})


def bulk(*entities: Json, action: str = "update", dag_id: str = "reports") -> Json:
    body = {"actions": [{"action": action, "entities": [*entities]}], "method": "PATCH"}
    return event("bulk_dag_runs", body, dag_id=dag_id, run_id=None)


FAILED = {"state": "failed", "method": "PATCH"}


@pytest.mark.parametrize(
    ("events", "who"),
    [
        ([event("patch_dag_run", FAILED)], "anna"),
        ([event("patch_dag_run", FAILED, owner=None)], "somebody"),
        ([bulk({"dag_run_id": "run", "dag_id": "reports", "state": "failed"})], "anna"),
        ([bulk({"dag_run_id": "run", "state": "failed"}, dag_id="~")], "anna"),
        ([event("patch_dag_run", {"note": "later"}, owner="otto"), event("patch_dag_run", FAILED)], "anna"),
        ([event("patch_dag_run", FAILED, run_id="another")], None),
        ([event("patch_dag_run", {"state": "success"}), event("patch_dag_run", FAILED)], None),
        ([bulk({"dag_run_id": "another", "state": "failed"}), bulk({"dag_run_id": "run", "note": "n"})], None),
        ([bulk({"dag_run_id": "run", "dag_id": "another", "state": "failed"})], None),
        ([bulk({"dag_run_id": "run"}, action="delete"), event("patch_dag_run", "no JSON")], None),
        ([event("bulk_dag_runs", {"actions": [None, {"action": "update", "entities": None}]})], None),
        ([], None),
    ],
)
def test_a_run_that_somebody_marked_as_failed(events: list[Json], who: str | None) -> None:
    found = explanations.run_set_failed(RUN, events)
    if who is None:
        assert found is None
    else:
        assert found is not None
        assert found.message == f"The run was marked as failed in Airflow by {who}."
        assert (found.category, found.exception_type, found.task_id) == ("cancelled", "MarkedFailed", None)


def test_the_note_of_the_run_is_quoted() -> None:
    found = explanations.run_set_failed({**RUN, "note": "wrong\ncustomer"}, [event("patch_dag_run", FAILED)])
    assert found is not None
    assert found.message == "The run was marked as failed in Airflow by anna. Note: wrong customer"


MISMATCH = (
    "Executor AdoptingLocalExecutor(parallelism=8) reported that the task instance <TaskInstance: reports.work run"
    " [queued]> finished with state failed, but the task instance's state attribute is queued."
)
NEW = {"new_state": "failed", "method": "PATCH"}


@pytest.mark.parametrize(
    ("given", "events", "kind", "words"),
    [
        (task(), [of_task("patch_task_instance", NEW, owner="anna", map_index=None, try_number=None)], "MarkedFailed",
         "Task 'work' was marked as failed in Airflow by anna."),
        (task(map_index=2), [of_task("patch_task_instance", {**NEW, "map_index": "2"}, owner="anna")], "MarkedFailed",
         "Task 'work[2]' was marked as failed in Airflow by anna."),
        (task(map_index=1), [of_task("patch_task_instance", {**NEW, "map_index": "2"}, owner="anna")], None, ""),
        (task(), [of_task("patch_task_instance", {"new_state": "success"}, owner="anna")], None, ""),
        (task(), [of_task("patch_task_instance", NEW, owner="anna", task_id="another")], None, ""),
        (task(), [of_task("patch_task_instance", {**NEW, "include_downstream": True}, owner="anna", task_id="first")],
         "MarkedFailed", "by anna."),
        (task(task_id="group.work"), [event("patch_task_group_instances", {**NEW, "group_id": "group"})],
         "MarkedFailed", "Task 'group.work' was marked as failed in Airflow by anna."),
        (task(start_date=None), [of_task("stuck in queued tries exceeded", "Task was requeued more than 2 times.")],
         "TaskNeverStarted", "never started: it was queued for too long"),
        (task(), [of_task("heartbeat timeout", "Task did not emit heartbeat within time limit (60 seconds).")],
         "WorkerLost", "its worker on worker-1 stopped reporting"),
        (task(), [of_task("heartbeat timeout", "Task did not emit heartbeat.", try_number=2)], None, ""),
        (task(), [of_task("state mismatch", MISMATCH)], "WorkerLost", "its process was killed"),
        (task(), [of_task("state mismatch", f"{MISMATCH} Extra info: pod evicted: memory")], "WorkerLost",
         "The executor's words: pod evicted: memory"),
        (task(start_date=None), [of_task("state mismatch", MISMATCH)], "TaskNeverStarted", "could not be started"),
        (task(task_id="x" * 249, start_date=None), [of_task("state mismatch", MISMATCH, task_id="x" * 249)],
         "TaskNeverStarted", "Its task id is too long for the name of a folder"),
        (task(), [of_task("fail task", "Forcing task to fail due to dag's `fail_fast` setting.")],
         "StoppedByFailFast", "another task had failed"),
        (task(), [of_task("running"), of_task("failed")], None, ""),
    ],
)  # fmt: skip
def test_a_task_whose_end_airflow_has_logged(given: Json, events: list[Json], kind: str | None, words: str) -> None:
    found = explanations.task_ended(RUN, given, events)
    if kind is None:
        assert found is None
        return
    assert found is not None
    assert found.exception_type == kind
    assert words in found.message
    assert (found.task_id, found.map_index) == (given["task_id"], given["map_index"])


def test_a_number_that_airflow_can_not_pass_on_is_named() -> None:
    found = explanations.task_ended({**RUN, "conf": {"a": [2**70]}}, task(), [of_task("state mismatch", MISMATCH)])
    assert found is not None
    assert found.category == "input"
    assert "/a/0 is an integer outside 64 bits" in found.message


def entry(text: str, level: str = "info", **more: Any) -> bytes:
    return json.dumps({"timestamp": "2026-11-29T08:43:02Z", "event": text, "level": level, **more}).encode()


def raised(kind: str, words: str) -> bytes:
    detail = [{"exc_type": kind, "exc_value": words, "frames": []}, {"exc_type": "KeyError", "exc_value": "'x'"}]
    return entry("Task failed with exception", "error", error_detail=detail)


OOM = entry("Process terminated by signal. Likely out of memory error (OOM).", "critical", signal_name="SIGKILL")


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        ([OOM], "ProcessLostError", "ran out of memory"),
        ([raised("ValueError", "an earlier one"), OOM], "ProcessLostError", "ran out of memory"),
        ([entry("Process terminated by signal.", "error", signal_name="SIGTERM")], "ProcessLostError", "shut down"),
        ([entry("Process terminated by signal.", "error", signal=-10)], "ProcessLostError", "the signal -10"),
        ([raised("RuntimeError", "outer words")], "RuntimeError", "Task 'work' failed: RuntimeError: outer words"),
        ([raised("AirflowTaskTimeout", "Timeout, PID: 7")], "AirflowTaskTimeout", "longer than its timeout allows"),
        ([entry("Dag not found during start up", "error")], "DagNotFound", "did not find its DAG"),
        ([entry("Task not found in Dag during start up", "error")], "DagNotFound", "no longer exists in its DAG"),
        ([entry("Server indicated the task shouldn't be running anymore. Terminating process", "error"),
          entry("Task killed!", "error")], "MarkedFailed", "was marked as failed in Airflow while it ran"),
        ([entry("bad", "error"), entry("Process exited abnormally", "warning", exit_code=3)], "ProcessExited",
         "the exit code 3 after the message 'bad'"),
        ([entry("bad", "error"), entry("worse", "error")], "TaskFailed", "The last error in its log: worse"),
        ([entry("all is well"), b"no JSON", b'["error"]', b'{"level": "error"'], "TaskFailed", "Its log has no error"),
        ([], "TaskFailed", "It has left no log"),
    ],
)  # fmt: skip
def test_a_task_whose_log_says_why(lines: list[bytes], kind: str, words: str) -> None:
    findings = LogFindings()
    for line in lines:
        findings.add(line)
    found = explanations.task_failed(task(), findings)
    assert found.exception_type == kind
    assert words in found.message


def test_the_error_of_the_dags_file_is_quoted() -> None:
    findings = LogFindings()
    findings.add(entry("Dag not found during start up", "error"))
    found = explanations.task_failed(task(), findings, "SyntaxError: invalid syntax")
    assert (
        found.message
        == "Task 'work' could not load its DAG's file, which has an error now: SyntaxError: invalid syntax"
    )


def test_a_task_that_failed_before_it_started() -> None:
    found = explanations.task_failed(task(start_date=None, try_number=0), LogFindings())
    assert (found.exception_type, found.try_number) == ("TaskNeverStarted", None)


@pytest.mark.parametrize(("limit", "words"), [(timedelta(seconds=8), "8 s"), (timedelta(hours=1), "1:00:00")])
def test_a_run_that_took_too_long(limit: timedelta, words: str) -> None:
    found = explanations.timed_out(RUN, limit)
    assert found.category == "timeout"
    assert f"dagrun_timeout of {words}, so" in found.message


@pytest.mark.parametrize(
    ("state", "events", "kind", "words"),
    [
        ("cancelled", [event("delete_dag_run")], "RunDeleted", "The run was deleted in Airflow by anna."),
        ("cancelled", [event("delete_dag", run_id=None)], "DagDeleted", "The DAG was deleted, with its runs, in Airf"),
        ("cancelled", [event("delete_dag_run", run_id="another")], "RunDeleted", "The run was deleted in Airflow."),
        ("cancelled", [bulk({"dag_run_id": "run"}, action="delete")], "RunDeleted", "by anna."),
        ("failed", [], "RunDeleted", "after it had failed: what made it fail is no longer known."),
    ],
)
def test_a_run_that_airflow_no_longer_has(state: str, events: list[Json], kind: str, words: str) -> None:
    found = explanations.deleted({"dag_id": "reports", "dag_run_id": "run", "state": state}, events)
    assert found.exception_type == kind
    assert words in found.message


@pytest.mark.parametrize("found", [explanations.deadlocked(), explanations.unknown(), explanations.cancelled()])
def test_every_explanation_is_a_sentence(found: Explanation) -> None:
    assert found.message.endswith(".")
