"""Says why a run failed, from what Airflow knows about its end: the event log, the failed task, and that task's log.

Pure functions. Each explains one kind of end, or returns None when the evidence doesn't show it. The messages are for
the person who has to act: who or what ended the run, and what to change or where to look.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from backend.clients.airflow_runs import CONF_TEXT
from backend.core.errors.category import Category
from backend.core.jsonable import loads, unstorable
from backend.core.problems import pointer

Json = Mapping[str, Any]

BULK_CHANGES = ("bulk_dag_runs",)
TASK_CHANGES = ("patch_task_instance", "patch_task_group_instances")
DELETIONS = ("delete_dag_run", "delete_dag")
TASK_ENDS = ("stuck in queued tries exceeded", "heartbeat timeout", "state mismatch", "fail task")
"""Events of Airflow's log that may have ended a run: by people, and of its scheduler."""

EVENTS = ("patch_dag_run", *TASK_CHANGES, *TASK_ENDS)

LONGEST_NAME = 255 - len("task_id=")
"""The longest name that can be part of a log's path, in bytes: file systems allow 255, with Airflow's prefix."""

_QUOTED = 600
"""How many characters of Airflow's own words are quoted."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a run ended, as an error: of a task, or of the run if `task_id` is None."""

    category: Category
    exception_type: str
    message: str
    task_id: str | None = None
    map_index: int = -1
    try_number: int | None = None
    context: dict[str, Any] = field(default_factory=dict)


def run_set_failed(run: Json, events: Sequence[Json]) -> Explanation | None:
    """Somebody marked the run as failed; `events` are newest first."""
    event = next((event for event in events if _sets_state(event, run) is not None), None)
    if event is None or _sets_state(event, run) != "failed":
        return None
    note = f" Note: {_quote(run['note'])}" if run.get("note") else ""
    message = f"The run was marked as failed in Airflow by {_who(event)}.{note}"
    return Explanation("cancelled", "MarkedFailed", message, context=_facts(event))


def deleted(execution: Json, events: Sequence[Json]) -> Explanation:
    """Airflow no longer has the run: its DAG or the run itself was deleted, before or after the run ended."""
    event = next((event for event in events if _deletes(event, execution)), None)
    whole = event is not None and event["event"] == "delete_dag"
    by = f" by {_who(event)}" if event is not None else ""
    what = f"The {'DAG was deleted, with its runs,' if whole else 'run was deleted'} in Airflow{by}"
    kind = "DagDeleted" if whole else "RunDeleted"
    context = _facts(event) if event is not None else {}
    if execution["state"] == "failed":
        return Explanation(
            "internal", kind, f"{what}, after it had failed: what made it fail is no longer known.", context=context
        )
    return Explanation("cancelled", kind, f"{what}.", context=context)


def cancelled() -> Explanation:
    """The run was cancelled; it isn't known by whom."""
    return Explanation("cancelled", "RunCancelled", "The run was cancelled.")


def unknown() -> Explanation:
    """The evidence can't be read."""
    message = "Airflow's records of this run could not be read. See its page in Airflow, and the backend's log."
    return Explanation("internal", "Unexplained", message)


def timed_out(run: Json, limit: timedelta) -> Explanation:
    """The run took longer than its DAG allows."""
    message = (
        f"The run exceeded its DAG's dagrun_timeout of {_span(limit)}, so Airflow stopped it. Raise dagrun_timeout if"
        " it needs more time."
    )
    context = {"started_at": run["start_date"], "finished_at": run["end_date"]}
    return Explanation("timeout", "DagRunTimeout", message, context=context)


def deadlocked() -> Explanation:
    """Airflow ended a run although none of its tasks had failed, and nobody is known to have done so."""
    message = (
        "Airflow ended the run although none of its tasks had failed: the tasks that were left could not start any"
        " more, because of their trigger rules, or because the DAG was changed during the run. The scheduler's log says"
        " more."
    )
    return Explanation("internal", "NoTaskFailed", message)


def task_ended(run: Json, task: Json, events: Sequence[Json]) -> Explanation | None:
    """What the event log says about the end of a failed task: somebody, the scheduler or the executor ended it."""
    if event := next((event for event in events if _sets_task_failed(event, task)), None):
        return _of(task, "cancelled", "MarkedFailed", f"was marked as failed in Airflow by {_who(event)}.", event)
    own = {event["event"]: event for event in reversed(events) if _is_about(event, task)}
    if event := own.get("stuck in queued tries exceeded"):
        what = (
            "never started: it was queued for too long, again and again, and no worker took it. Check that workers run,"
            f" listen to its queue ({task.get('queue')}) and have free slots. Airflow: {_quote(event.get('extra'))}"
        )
        return _of(task, "internal", "TaskNeverStarted", what, event)
    if event := own.get("heartbeat timeout"):
        where = f" on {task['hostname']}" if task.get("hostname") else ""
        what = (
            f"was lost: its worker{where} stopped reporting. The process was killed, or the machine is overloaded, out"
            f" of memory or gone. Airflow: {_quote(event.get('extra'))}"
        )
        return _of(task, "internal", "WorkerLost", what, event)
    if event := own.get("state mismatch"):
        return _ended_by_executor(run, task, event)
    if event := own.get("fail task"):
        what = "was stopped because another task had failed: its DAG sets fail_fast."
        return _of(task, "cancelled", "StoppedByFailFast", what, event)
    return None


def _ended_by_executor(run: Json, task: Json, event: Json) -> Explanation:
    """The executor reported the end of a task that had reported none itself."""
    _, _, info = str(event.get("extra") or "").partition("Extra info: ")
    said = f" The executor's words: {_quote(info)}" if info.strip() not in ("", "None") else ""
    names = {"run id": run["dag_run_id"], "DAG id": run["dag_id"], "task id": task["task_id"]}
    long = next((name for name, value in names.items() if len(value.encode()) > LONGEST_NAME), None)
    if task.get("start_date") is None:
        what = "could not be started: its process ended before it began."
        if long is not None:
            what += f" Its {long} is too long for the name of a folder, in which Airflow keeps the task's log."
        what += said or " The logs of the scheduler and the workers say more."
        return _of(task, "internal", "TaskNeverStarted", what, event)
    conf = loads(run[CONF_TEXT]) if CONF_TEXT in run else run.get("conf")
    if (fault := unstorable(conf)) is not None:
        path, detail = fault
        what = f"could not be given the run's input: {pointer(*path)} {detail}.{said}"
        return _of(task, "input", "InputNotPassedOn", what, event)
    what = f"is gone without having reported a result: its process was killed, or its worker was stopped.{said}"
    return _of(task, "internal", "WorkerLost", what, event)


@dataclass(slots=True)
class LogFindings:
    """The parts of a try's log that may say why it failed, collected line by line."""

    lines: int = 0
    signal: str | None = None
    exception: tuple[str, str] | None = None
    """Type and text of the last exception that was logged with its traceback."""
    stopped: bool = False
    """Airflow let the process stop because the task's state had been changed."""
    not_found: str | None = None
    """`dag` or `task`: what the worker did not find in the DAG's file."""
    exit_code: Any = None
    error: str | None = None
    """The last message of the level error or above."""

    def add(self, line: bytes) -> None:
        """Take in a line of the log, a JSON object."""
        self.lines += 1
        if not any(mark in line for mark in _MARKS):
            return
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        event, level = str(entry.get("event", "")), str(entry.get("level", "")).lower()
        if event.startswith("Process terminated by signal"):
            self.signal = str(entry.get("signal_name") or entry.get("signal"))
        elif event.startswith("Server indicated the task shouldn't be running"):
            self.stopped = True
        elif event.startswith("Process exited abnormally"):
            self.exit_code = entry.get("exit_code")
        elif event.startswith("Dag not found during start up"):
            self.not_found = "dag"
        elif event.startswith("Task not found in Dag"):
            self.not_found = "task"
        elif level in ("error", "critical"):
            self.error = event
            if found := _exception(entry.get("error_detail")):
                self.exception = found


_MARKS = (b'"error"', b'"critical"', b"Process exited abnormally")

_SIGNALS = {
    "SIGKILL": (
        "was killed (SIGKILL), most likely because the machine or its container ran out of memory. Give the workers"
        " more memory, or let fewer tasks run at a time."
    ),
    "SIGTERM": "was stopped (SIGTERM): its worker was shut down or restarted, or the task was stopped from outside.",
    "SIGSEGV": "crashed (SIGSEGV): a native library that it uses has a fault.",
}


def task_failed(task: Json, found: LogFindings, import_error: str | None = None) -> Explanation:
    """What the log of its last try says about a failed task. `import_error` is that of the DAG's file."""
    if found.stopped:
        what = "was marked as failed in Airflow while it ran. Airflow's event log doesn't say by whom."
        return _of(task, "cancelled", "MarkedFailed", what)
    if found.signal is not None:
        what = _SIGNALS.get(found.signal, f"was ended by the signal {found.signal}.")
        return _of(task, "internal", "ProcessLostError", what, signal=found.signal)
    if found.not_found is not None:
        if found.not_found == "task":
            what = "no longer exists in its DAG, whose file was changed during the run. Start a new run."
        elif import_error:
            what = f"could not load its DAG's file, which has an error now: {_quote(import_error)}"
        else:
            what = "did not find its DAG: the file was removed or renamed, or no longer has it. Restore it, then retry."
        return _of(task, "internal", "DagNotFound", what)
    if found.exception is not None:
        kind, words = found.exception
        if kind.rpartition(".")[2] in ("AirflowTaskTimeout", "AirflowSensorTimeout"):
            return _of(task, "timeout", kind, f"took longer than its timeout allows ({_quote(words)}).")
        return _of(task, "internal", kind, f"failed: {kind.rpartition('.')[2]}: {_quote(words)}")
    if found.exit_code is not None:
        last = f" after the message {_quote(found.error)!r}" if found.error else ""
        what = (
            f"ended its own process with the exit code {found.exit_code}{last}, without an error that Airflow knows of."
        )
        return _of(task, "internal", "ProcessExited", what, exit_code=found.exit_code)
    if found.error is not None:
        return _of(task, "internal", "TaskFailed", f"failed. The last error in its log: {_quote(found.error)}")
    if task.get("start_date") is None:
        what = "failed before it started. The logs of the scheduler and of the workers say why."
        return _of(task, "internal", "TaskNeverStarted", what)
    where = "Its log has no error." if found.lines else "It has left no log."
    return _of(task, "internal", "TaskFailed", f"failed without saying why. {where} Its worker may say more.")


def _of(task: Json, category: Category, kind: str, what: str, event: Json | None = None, **facts: Any) -> Explanation:
    context = {name: task[name] for name in ("hostname", "operator", "queue", "note") if task.get(name)}
    index = task["map_index"]
    name = task["task_id"] if index < 0 else f"{task['task_id']}[{index}]"
    note = f" Note: {_quote(task['note'])}" if task.get("note") else ""
    return Explanation(
        category, kind, f"Task {name!r} {what}{note}", task["task_id"], index, task["try_number"] or None,
        context | facts | (_facts(event) if event is not None else {}),
    )  # fmt: skip


def _exception(detail: Any) -> tuple[str, str] | None:
    """The exception that was raised; the rest of the logged chain are its causes."""
    chain = [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
    if not chain:
        return None
    return str(chain[0].get("exc_type") or "Exception"), str(chain[0].get("exc_value") or "")


def _sets_state(event: Json, run: Json) -> Any:
    """The state that somebody gave the run, or None."""
    body = _body(event)
    if event["event"] == "patch_dag_run":
        return body.get("state") if event.get("run_id") == run["dag_run_id"] else None
    for entity in _entities(body, "update") if event["event"] in BULK_CHANGES else ():
        if (
            isinstance(entity, dict)
            and entity.get("dag_run_id") == run["dag_run_id"]
            and entity.get("dag_id", run["dag_id"]) in (run["dag_id"], "~")
        ):
            return entity.get("state")
    return None


def _deletes(event: Json, execution: Json) -> bool:
    if event["event"] == "delete_dag":
        return bool(event.get("dag_id") == execution["dag_id"])
    if event["event"] == "delete_dag_run":
        return bool(event.get("run_id") == execution["dag_run_id"])
    return any(
        execution["dag_run_id"] in (entity, entity.get("dag_run_id") if isinstance(entity, dict) else None)
        for entity in _entities(_body(event), "delete")
    )


def _sets_task_failed(event: Json, task: Json) -> bool:
    body = _body(event) if event["event"] in TASK_CHANGES else {}
    if body.get("new_state") != "failed":
        return False
    if event["event"] == "patch_task_group_instances":
        return str(task["task_id"]).startswith(f"{body.get('group_id')}.")
    if event.get("task_id") != task["task_id"]:
        return bool(body.get("include_downstream") or body.get("include_upstream"))
    index = body.get("map_index")
    return index is None or int(index) in (-1, task["map_index"])


def _is_about(event: Json, task: Json) -> bool:
    return (
        event.get("task_id") == task["task_id"]
        and event.get("map_index") in (None, task["map_index"])
        and event.get("try_number") in (None, task["try_number"])
    )


def _body(event: Json) -> dict[str, Any]:
    """The request of somebody's action, which Airflow keeps as JSON."""
    try:
        body = json.loads(event.get("extra") or "{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _entities(body: Json, action: str) -> Iterable[Any]:
    """What somebody changed or deleted at once: objects, or only their ids."""
    actions = body.get("actions")
    for one in actions if isinstance(actions, list) else []:
        if isinstance(one, dict) and one.get("action") == action:
            yield from one.get("entities") or []


def _who(event: Json) -> str:
    return str(event.get("owner") or "somebody")


def _facts(event: Json) -> dict[str, Any]:
    return {name: event[name] for name in ("event", "owner", "when") if event.get(name)}


def _quote(words: Any) -> str:
    one_line = " ".join(str(words or "").split())
    return one_line if len(one_line) <= _QUOTED else f"{one_line[:_QUOTED]}…"


def _span(limit: timedelta) -> str:
    seconds = limit.total_seconds()
    return f"{seconds:g} s" if seconds < 120 else str(limit)
