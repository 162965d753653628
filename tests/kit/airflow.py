"""An in-memory Airflow: the endpoints of its REST API that the backend calls, with faults on request.

In a test::

    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow", params=...)
    app = create_app(settings, airflow_transport=airflow.transport)
    airflow.fail("dagRuns", lose_answer=True)   # the next trigger takes effect, but its response is lost

Responses have the shape and the status codes of Airflow 3.3. Not thread-safe: use it on one event loop.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import httpx
import jwt
from jsonschema import Draft202012Validator

Json = dict[str, Any]
SECRET = "the secret of the Airflow in memory, which nobody needs"
PASSWORD = "correct horse"

VISUAL_PARAMS: Json = {
    "query": {"value": "Analyze this image", "description": "What", "schema": {"type": "string", "minLength": 1}},
    "image_url": {"value": None, "description": None, "schema": {"type": "string", "minLength": 1}},
    "options": {
        "value": {},
        "description": None,
        "schema": {
            "type": "object",
            "properties": {"a/b": {"type": "integer"}, "sizes": {"type": "array", "items": {"type": "integer"}}},
        },
    },
}
"""Params much like those of `visual_ai_workflow`, as `/details` returns them."""

_TEXT = {"value": None, "description": None, "schema": {"type": ["null", "string"]}}

MULTI_AGENT_PARAMS: dict[str, Any] = {
    "query": _TEXT,
    "image_url": _TEXT,
    "text": _TEXT,
    "agents": {
        "value": None,
        "description": None,
        "schema": {"type": ["null", "array"], "items": {"type": "object", "required": ["name"]}},
    },
    "orchestration_mode": {
        "value": "parallel",
        "description": None,
        "schema": {"type": "string", "enum": ["parallel", "sequential", "graph", "supervisor"]},
    },
    "synthesis": {"value": True, "description": None, "schema": {"type": ["boolean", "object"]}},
    "supervisor": {"value": None, "description": None, "schema": {"type": ["null", "object"]}},
    "max_steps": {"value": None, "description": None, "schema": {"type": ["null", "integer"], "minimum": 1}},
    "error_policy": {"value": None, "description": None, "schema": {"type": ["null", "object"]}},
}
"""Params of `multi_agent_workflow`, as `/details` returns them."""


@dataclass
class User:
    """A user of Airflow. A `forbidden` user may sign in and do nothing else."""

    password: str
    roles: list[str]
    forbidden: bool = False
    active: bool = True
    created_on: str = "2026-01-01T00:00:00"


@dataclass
class Fault:
    """A fault of requests whose `METHOD path` contains `where`. Without a status, the connection fails."""

    where: str
    status: int | None = None
    times: int | None = None
    lose_answer: bool = False
    delay: float = 0.0
    cut_after: int | None = None
    """The response, a log, breaks off after this many lines."""
    detail: Any = "a fault"


@dataclass
class Run:
    """A DAG run and its task instances, as the API returns them."""

    shown: Json
    updated_at: datetime
    tasks: dict[tuple[str, int], Json] = field(default_factory=dict)
    logs: dict[tuple[str, int, int], Iterable[bytes]] = field(default_factory=dict)
    """Lines of the log, by task, map index and try."""
    xcoms: dict[tuple[str, int], Any] = field(default_factory=dict)
    """What the tasks have returned, by task and map index."""
    tasks_updated_at: dict[tuple[str, int], datetime] = field(default_factory=dict)


class FakeAirflow:
    """The server. Users: `airflow` (the service account, Admin), `victor`, `ulla`, `uwe`, `otto`, `anna`, `nora`."""

    def __init__(self) -> None:
        self.users = {
            "airflow": User("airflow", ["Admin"]),
            "victor": User(PASSWORD, ["Viewer"]),
            "ulla": User(PASSWORD, ["User"]),
            "uwe": User(PASSWORD, ["User", "Viewer"]),
            "otto": User(PASSWORD, ["Op"]),
            "anna": User(PASSWORD, ["Admin"]),
            "nora": User(PASSWORD, ["Public", "Data Scientist"]),
        }
        self.roles: dict[str, list[tuple[str, str]]] = {"Data Scientist": []}
        """For each role that doesn't come with Airflow, its permissions: actions and resources."""
        self.dags: dict[str, Json] = {}
        self.runs: dict[tuple[str, str], Run] = {}
        self.import_errors: dict[str, str] = {}
        """For each file, the stack trace of what made its import fail."""
        self.assets: list[Json] = []
        """The assets, each with its `name` and `uri`."""
        self.parsed: list[str] = []
        """The tokens of files that were to be parsed again."""
        self.event_log: list[Json] = []
        """Airflow's own log of what people and the scheduler did, oldest first."""
        self.followers: dict[str, dict[str, list[str]]] = {}
        """For each DAG, its tasks and the tasks downstream of each."""
        self.dead: set[str] = set()
        """The components that are not running."""
        self.taken_slots: dict[str, int] = {}
        """For each pool, how many of its 128 slots are taken."""
        self.log: list[str] = []
        """`METHOD path` of each request, oldest first."""
        self.askers: list[tuple[str, str]] = []
        """The user and `METHOD path` of each request that carried a token."""
        self.triggers: list[tuple[str, Json]] = []
        """The user and the body of each trigger, whether it was accepted or not."""
        self.responses: list[tuple[str, str, list[str]]] = []
        """Who answered which task's request, and how."""
        self.token_lifetime = 24 * 3600.0
        self._faults: list[Fault] = []
        self.transport = httpx.MockTransport(self.answer)

    # Set-up by tests

    def add_dag(self, dag_id: str, *, params: Json | None = None, **shown: Any) -> None:
        """Add a DAG. `shown` replaces fields of its details, such as `is_paused`."""
        self.dags[dag_id] = {
            "dag_id": dag_id,
            "dag_display_name": dag_id,
            "description": None,
            "tags": [{"name": "visual-ai"}],
            "is_paused": False,
            "is_stale": False,
            "has_import_errors": False,
            "bundle_name": "dags-folder",
            "relative_fileloc": f"{dag_id}.py",
            "allowed_run_types": None,
            "dag_run_timeout": None,
            "last_parsed_time": datetime.now(UTC).isoformat(),
            "params": VISUAL_PARAMS if params is None else params,
            **shown,
        }

    def add_run(
        self,
        dag_id: str,
        dag_run_id: str,
        state: str = "running",
        tasks: Mapping[str, str | None] | None = None,
        **shown: Any,
    ) -> None:
        """Add a run that another client started, with the states of its tasks."""
        now = datetime.now(UTC)
        self.runs[dag_id, dag_run_id] = Run(
            {
                "dag_id": dag_id,
                "dag_run_id": dag_run_id,
                "state": state,
                "run_type": "scheduled",
                "conf": {},
                "queued_at": now.isoformat(),
                "run_after": now.isoformat(),
                "start_date": None if state == "queued" else now.isoformat(),
                "end_date": now.isoformat() if state in ("success", "failed") else None,
                "triggering_user_name": None,
                "note": None,
                **shown,
            },
            now,
        )
        for task_id, task_state in (tasks or {}).items():
            self.set_task(dag_id, dag_run_id, task_id, task_state)

    def set_run(self, dag_id: str, dag_run_id: str, state: str, *, updated_at: datetime | None = None) -> None:
        """Change a run's state."""
        run, now = self.runs[dag_id, dag_run_id], datetime.now(UTC)
        ended = run.shown["end_date"] is not None
        run.shown["state"] = state
        if state in ("success", "failed"):
            run.shown["end_date"] = now.isoformat()
        elif state == "running" and (ended or run.shown["start_date"] is None):
            run.shown |= {"start_date": now.isoformat(), "end_date": None}
        elif state == "queued":
            run.shown |= {"start_date": None, "end_date": None}
        run.updated_at = updated_at or now

    def set_task(
        self, dag_id: str, dag_run_id: str, task_id: str, state: str | None, *, try_number: int = 1, map_index: int = -1
    ) -> None:
        """Create or change a task instance."""
        run, moment = self.runs[dag_id, dag_run_id], datetime.now(UTC)
        now = moment.isoformat()
        run.tasks_updated_at[task_id, map_index] = moment
        run.tasks[task_id, map_index] = {
            "dag_id": dag_id,
            "dag_run_id": dag_run_id,
            "task_id": task_id,
            "map_index": map_index,
            "try_number": try_number,
            "state": state,
            "hostname": "worker-1" if state is not None else "",
            "operator": "PythonOperator",
            "queue": "default",
            "pool": "default_pool",
            "note": None,
            "start_date": now if state is not None else None,
            "end_date": now if state in ("success", "failed") else None,
            "duration": 0.5 if state in ("success", "failed") else None,
        }

    def set_log(
        self,
        dag_id: str,
        dag_run_id: str,
        task_id: str,
        lines: Iterable[Json | bytes],
        *,
        try_number: int = 1,
        map_index: int = -1,
    ) -> None:
        """Set the log of a try: entries, or raw lines. An iterable that is not a list is consumed while it is sent."""
        raw = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
        kept = list(raw) if isinstance(lines, list) else raw
        self.runs[dag_id, dag_run_id].logs[task_id, map_index, try_number] = kept

    def add_event(self, event: str, dag_id: str | None = None, run_id: str | None = None, **more: Any) -> None:
        """Add an entry of the event log. An `extra` that is not a text is what somebody requested."""
        extra = more.pop("extra", None)
        self.event_log.append(
            {
                "event_log_id": len(self.event_log) + 1,
                "when": datetime.now(UTC).isoformat(),
                "event": event,
                "dag_id": dag_id,
                "run_id": run_id,
                "task_id": None,
                "map_index": None,
                "try_number": None,
                "owner": None,
                "extra": extra if extra is None or isinstance(extra, str) else json.dumps(extra),
                **more,
            }
        )

    def delete_run(self, dag_id: str, dag_run_id: str) -> None:
        """Delete a run, as a user can in Airflow's UI."""
        del self.runs[dag_id, dag_run_id]

    def fail(self, where: str = "", status: int | None = None, *, times: int | None = None, **more: Any) -> Fault:
        """Let the next `times` requests fail, or all of them until `heal`."""
        fault = Fault(where, status, times, **more)
        self._faults.append(fault)
        return fault

    def heal(self) -> None:
        """Remove all faults."""
        self._faults.clear()

    # What it answers

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """The server's response. Raises httpx's errors where the connection would fail."""
        call = f"{request.method} {request.url.path}"
        self.log.append(call)
        fault = next((fault for fault in self._faults if fault.where in call), None)
        if fault is None:
            return self._route(request)
        if fault.times is not None:
            fault.times -= 1
            if not fault.times:
                self._faults.remove(fault)
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.lose_answer:
            self._route(request)
            raise httpx.ReadError("the answer was lost", request=request)
        if fault.cut_after is not None:
            answer = self._route(request)
            lines = (await answer.aread()).splitlines(keepends=True)
            return httpx.Response(200, content=_broken(lines[: fault.cut_after], request))
        if fault.status is None:
            raise httpx.ConnectError("10.9.8.7: connection refused", request=request)
        return httpx.Response(fault.status, json={"detail": fault.detail})

    def _route(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        if path == "/auth/token":
            return self._login(json.loads(request.content))
        if path == "/api/v2/monitor/health":
            return self._health()
        name = self._user(request)
        if name is None:
            return _refused(401, "Invalid JWT token")
        self.askers.append((name, f"{request.method} {path}"))
        if self.users[name].forbidden:
            return _refused(403, "Forbidden")
        for method, pattern, handler in (
            ("GET", r"/ui/auth/me", self._me),
            ("GET", r"/auth/fab/v1/users", self._list_users),
            ("GET", r"/auth/fab/v1/users/([^/]+)", self._user_details),
            ("GET", r"/auth/fab/v1/roles/([^/]+)", self._role_details),
            ("GET", r"/api/v2/dags", self._list_dags),
            ("GET", r"/api/v2/importErrors", self._list_import_errors),
            ("GET", r"/api/v2/assets", self._list_assets),
            ("PUT", r"/api/v2/parseDagFile/([^/]+)", self._parse_file),
            ("GET", r"/api/v2/eventLogs", self._list_events),
            ("GET", r"/api/v2/pools/([^/]+)", self._pool),
            ("GET", r"/api/v2/dags/([^/~]+)/details", self._details),
            ("GET", r"/api/v2/dags/([^/~]+)/tasks", self._dag_tasks),
            ("POST", r"/api/v2/dags/([^/~]+)/dagRuns", self._trigger),
            ("GET", r"/api/v2/dags/~/dagRuns", self._list_runs),
            ("GET", r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)", self._run),
            ("GET", r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/(-?[0-9]+)", self._task),
            ("GET", r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/logs/([0-9]+)", self._log),
            (
                "GET",
                r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/xcomEntries/return_value",
                self._xcom,
            ),
            ("PATCH", r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)", self._stop),
            (
                "PATCH",
                r"/api/v2/dags/([^/~]+)/dagRuns/([^/]+)/taskInstances/([^/]+)/(-?[0-9]+)/hitlDetails",
                self._respond,
            ),
            ("POST", r"/api/v2/dags/([^/~]+)/clearTaskInstances", self._clear),
            ("POST", r"/api/v2/dags/~/dagRuns/~/taskInstances/list", self._list_tasks),
            ("GET", r"/api/v2/dags/~/dagRuns/~/taskInstances", self._list_changed_tasks),
        ):
            if request.method == method and (match := re.fullmatch(pattern, path)):
                return handler(request, name, *map(unquote, match.groups()))
        return _refused(404, "Not Found")

    def _login(self, body: Json) -> httpx.Response:
        # Like FAB, which finds an account by any spelling of its name, and by the exact e-mail address.
        name = self._spelled(body["username"]) or body["username"].removesuffix("@example.test")
        user = self.users.get(name)
        if user is None or not user.active or user.password != body["password"]:
            return _refused(401, "Invalid credentials")
        claims = {"sub": name, "exp": time.time() + self.token_lifetime}
        return httpx.Response(201, json={"access_token": jwt.encode(claims, SECRET, algorithm="HS256")})

    def _user(self, request: httpx.Request) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            name = str(jwt.decode(token, SECRET, algorithms=["HS256"])["sub"])
        except jwt.InvalidTokenError:
            return None
        return name if name in self.users and self.users[name].active else None

    def _spelled(self, name: str) -> str | None:
        return next((known for known in self.users if known.lower() == name.lower()), None)

    def _health(self) -> httpx.Response:
        beat = datetime.now(UTC).isoformat()
        parts: Json = {"metadatabase": {"status": "healthy"}}
        for name in ("scheduler", "triggerer", "dag_processor"):
            status = "unhealthy" if name in self.dead else "healthy"
            parts[name] = {"status": status, f"latest_{name}_heartbeat": beat}
        return httpx.Response(200, json=parts)

    def _user_details(self, _: httpx.Request, asking: str, name: str) -> httpx.Response:
        if "Admin" not in self.users[asking].roles:
            return _refused(403, "Forbidden")
        found = self._spelled(name)
        if found is None:
            return _refused(404, f"The User with username `{name}` was not found")
        return httpx.Response(200, json=self._shown_user(found))

    def _shown_user(self, name: str) -> Json:
        user = self.users[name]
        roles = [{"name": role} for role in user.roles]
        return {"username": name, "roles": roles, "active": user.active, "created_on": user.created_on}

    def _list_users(self, request: httpx.Request, asking: str) -> httpx.Response:
        if "Admin" not in self.users[asking].roles:
            return _refused(403, "Forbidden")
        shown = [self._shown_user(name) for name in self.users]
        return httpx.Response(200, json={"users": _page(request, shown), "total_entries": len(shown)})

    def _role_details(self, _: httpx.Request, asking: str, name: str) -> httpx.Response:
        if "Admin" not in self.users[asking].roles:
            return _refused(403, "Forbidden")
        if name not in self.roles:
            return _refused(404, f"Role with name `{name}` was not found")
        actions = [{"action": {"name": action}, "resource": {"name": of}} for action, of in self.roles[name]]
        return httpx.Response(200, json={"name": name, "actions": actions})

    def _list_assets(self, request: httpx.Request, _: str) -> httpx.Response:
        wanted = request.url.params
        found = [
            asset
            for asset in self.assets
            if wanted.get("uri_pattern", "") in asset["uri"] and wanted.get("name_pattern", "") in asset["name"]
        ]
        return httpx.Response(200, json={"assets": found, "total_entries": len(found)})

    def _parse_file(self, _request: httpx.Request, _: str, token: str) -> httpx.Response:
        self.parsed.append(token)
        return httpx.Response(201, json=None)

    def _me(self, _: httpx.Request, name: str) -> httpx.Response:
        return httpx.Response(200, json={"id": name, "username": name})

    def _list_dags(self, request: httpx.Request, _: str) -> httpx.Response:
        wanted = request.url.params
        found = [
            {key: value for key, value in self.dags[name].items() if key != "params"}
            for name in sorted(self.dags)
            if (not self.dags[name]["is_stale"] or wanted.get("exclude_stale") == "false")
            and (self.dags[name]["has_import_errors"] or wanted.get("has_import_errors") != "true")
        ]
        return httpx.Response(200, json={"dags": _page(request, found), "total_entries": len(found)})

    def _list_import_errors(self, request: httpx.Request, _: str) -> httpx.Response:
        found = [
            {"bundle_name": "dags-folder", "filename": name, "stack_trace": trace}
            for name, trace in self.import_errors.items()
        ]
        page = _page(request, found)
        return httpx.Response(200, json={"import_errors": page, "total_entries": len(found)})

    def _details(self, _: httpx.Request, __: str, dag_id: str) -> httpx.Response:
        if dag_id not in self.dags:
            return _refused(404, f"The Dag with ID: `{dag_id}` was not found")
        return httpx.Response(200, json=self.dags[dag_id])

    def _pool(self, _: httpx.Request, __: str, name: str) -> httpx.Response:
        taken = self.taken_slots.get(name, 0)
        return httpx.Response(
            200, json={"name": name, "slots": 128, "occupied_slots": taken, "open_slots": 128 - taken}
        )

    def _dag_tasks(self, _: httpx.Request, __: str, dag_id: str) -> httpx.Response:
        followers = self.followers.get(dag_id, {"validate_input": ["analyse_image"], "analyse_image": []})
        tasks = [
            {
                "task_id": name,
                "task_display_name": name,
                "operator_name": "LangGraphOperator",
                "is_mapped": False,
                "downstream_task_ids": following,
            }
            for name, following in followers.items()
        ]
        return httpx.Response(200, json={"tasks": tasks, "total_entries": len(tasks)})

    def _trigger(self, request: httpx.Request, name: str, dag_id: str) -> httpx.Response:
        body = json.loads(request.content)
        self.triggers.append((name, body))
        if "Viewer" in self.users[name].roles and len(self.users[name].roles) == 1:
            return _refused(403, "Forbidden")
        if dag_id not in self.dags:
            return _refused(404, f"Dag with dag_id: '{dag_id}' not found")
        if "logical_date" not in body:
            return _refused(422, [{"loc": ["body", "logical_date"], "msg": "Field required", "type": "missing"}])
        if (dag_id, body["dag_run_id"]) in self.runs:
            return _refused(409, {"reason": "Unique constraint violation", "statement": "hidden"})
        date = body["logical_date"]
        if date and any(run.shown.get("logical_date") == date for key, run in self.runs.items() if key[0] == dag_id):
            return _refused(409, {"reason": "Unique constraint violation", "statement": "hidden"})
        for key, param in self.dags[dag_id]["params"].items():
            value = body["conf"].get(key, param["value"])
            if not Draft202012Validator(param["schema"]).is_valid(value):
                return _refused(400, f"Invalid input for param {key}")
        self.add_run(
            dag_id,
            body["dag_run_id"],
            "queued",
            run_type="manual",
            conf=body["conf"],
            triggering_user_name=name,
            logical_date=body["logical_date"],
        )
        return httpx.Response(200, json=self.runs[dag_id, body["dag_run_id"]].shown)

    def _run(self, _: httpx.Request, __: str, dag_id: str, dag_run_id: str) -> httpx.Response:
        run = self.runs.get((dag_id, dag_run_id))
        if run is None:
            return _refused(404, f"The DagRun with dag_id: `{dag_id}` and run_id: `{dag_run_id}` was not found")
        return httpx.Response(200, json=run.shown)

    def _task(
        self, _: httpx.Request, __: str, dag_id: str, dag_run_id: str, task_id: str, map_index: str
    ) -> httpx.Response:
        run = self.runs.get((dag_id, dag_run_id))
        task = run.tasks.get((task_id, int(map_index))) if run else None
        if task is None:
            return _refused(404, f"The Mapped Task Instance with task_id: `{task_id}` was not found")
        return httpx.Response(200, json=task)

    def _xcom(self, request: httpx.Request, _: str, dag_id: str, dag_run_id: str, task_id: str) -> httpx.Response:
        run = self.runs.get((dag_id, dag_run_id))
        key = task_id, int(request.url.params["map_index"])
        if run is None or key not in run.xcoms:
            return _refused(404, "XCom entry with key: `return_value` not found")
        return httpx.Response(200, json={"key": "return_value", "value": run.xcoms[key]})

    def _log(
        self, request: httpx.Request, _: str, dag_id: str, dag_run_id: str, task_id: str, try_number: str
    ) -> httpx.Response:
        key = (task_id, int(request.url.params["map_index"]), int(try_number))
        run = self.runs.get((dag_id, dag_run_id))
        task = run.tasks.get(key[:2]) if run else None
        if run is None or task is None or task["try_number"] < key[2]:
            return _refused(404, "TaskInstance not found")
        if request.headers["accept"] != "application/x-ndjson":
            return _refused(406, "this Airflow streams logs only")
        content = _streamed(run.logs.get(key, []))
        return httpx.Response(200, content=content, headers={"content-type": "application/x-ndjson"})

    def _stop(self, request: httpx.Request, name: str, dag_id: str, dag_run_id: str) -> httpx.Response:
        """Like Airflow: running tasks fail, and tasks that have not started are skipped."""
        if (dag_id, dag_run_id) in self.runs and json.loads(request.content) == {"state": "failed"}:
            for (task_id, map_index), task in list(self.runs[dag_id, dag_run_id].tasks.items()):
                if task["state"] in (None, "queued", "scheduled", "running"):
                    state = "failed" if task["state"] == "running" else "skipped"
                    self.set_task(dag_id, dag_run_id, task_id, state, map_index=map_index)
            self.set_run(dag_id, dag_run_id, "failed")
        return self._run(request, name, dag_id, dag_run_id)

    def _respond(
        self, request: httpx.Request, name: str, dag_id: str, dag_run_id: str, task_id: str, map_index: str
    ) -> httpx.Response:
        """Like Airflow: a task takes one response, which wakes it."""
        task = self.runs[dag_id, dag_run_id].tasks.get((task_id, int(map_index)))
        if task is None or task["state"] not in ("running", "awaiting_input"):
            return _refused(409, "has already been updated")
        self.set_task(dag_id, dag_run_id, task_id, "scheduled", map_index=int(map_index))
        self.responses.append((name, task_id, json.loads(request.content)["chosen_options"]))
        return httpx.Response(200, json={})

    def _clear(self, request: httpx.Request, _: str, dag_id: str) -> httpx.Response:
        wanted = json.loads(request.content)
        dag_run_id = wanted["dag_run_id"]
        cleared = [(entry, -1) if isinstance(entry, str) else tuple(entry) for entry in wanted["task_ids"]]
        for task_id, map_index in cleared:
            self.set_task(dag_id, dag_run_id, task_id, None, map_index=map_index)
        self.set_run(dag_id, dag_run_id, "queued")
        return httpx.Response(200, json={"task_instances": [], "total_entries": len(cleared)})

    def _list_runs(self, request: httpx.Request, _: str) -> httpx.Response:
        wanted = request.url.params
        since = wanted.get("updated_at_gte")
        states = wanted.get_list("state")
        runs: Iterable[Run] = self.runs.values()
        if since is not None:
            runs = [run for run in runs if run.updated_at >= datetime.fromisoformat(since)]
        if states:
            runs = [run for run in runs if run.shown["state"] in states]
        if wanted.get("order_by") == "updated_at":
            runs = sorted(runs, key=lambda run: run.updated_at)
        found = [run.shown for run in runs]
        return httpx.Response(200, json={"dag_runs": _page(request, found), "total_entries": len(found)})

    def _list_changed_tasks(self, request: httpx.Request, _: str) -> httpx.Response:
        wanted = request.url.params
        since = datetime.fromisoformat(wanted["updated_at_gte"])
        run_after = wanted.get("run_after_gte")
        found = [
            task
            for run in self.runs.values()
            if run_after is None or run.shown["run_after"] >= run_after
            for key, task in run.tasks.items()
            if run.tasks_updated_at[key] >= since
        ]
        return httpx.Response(200, json={"task_instances": _page(request, found), "total_entries": len(found)})

    def _list_tasks(self, request: httpx.Request, _: str) -> httpx.Response:
        wanted = json.loads(request.content)
        found = [
            task
            for (dag_id, dag_run_id), run in self.runs.items()
            if dag_id in wanted["dag_ids"] and dag_run_id in wanted["dag_run_ids"]
            for task in run.tasks.values()
            if task["state"] in wanted.get("state", [task["state"]])
        ]
        if wanted.get("order_by") == "end_date":
            found.sort(key=lambda task: task["end_date"])
        start = wanted.get("page_offset", 0)
        page = found[start : start + min(wanted["page_limit"], 100)]
        return httpx.Response(200, json={"task_instances": page, "total_entries": len(found)})

    def _list_events(self, request: httpx.Request, name: str) -> httpx.Response:
        if "Admin" not in self.users[name].roles:
            return _refused(403, "Forbidden")
        wanted = request.url.params
        found = [
            entry
            for entry in reversed(self.event_log)
            if entry["event"] in wanted.get_list("included_events")
            and all(wanted.get(key) in (None, entry[key]) for key in ("dag_id", "run_id"))
            and ("after" not in wanted or entry["when"] > wanted["after"])
        ]
        return httpx.Response(200, json={"event_logs": _page(request, found), "total_entries": len(found)})


def _page(request: httpx.Request, items: list[Json]) -> list[Json]:
    limit, offset = int(request.url.params.get("limit", 50)), int(request.url.params.get("offset", 0))
    return items[offset : offset + min(limit, 100)]  # `[api] maximum_page_limit`


async def _streamed(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A log as Airflow sends it, preceded by the source it was read from."""
    for event in ("::group::Log message source details", "/airflow/logs/attempt.log", "::endgroup::"):
        yield json.dumps({"event": event}).encode() + b"\n"
    for line in lines:
        yield line + b"\n"


async def _broken(lines: Sequence[bytes], request: httpx.Request) -> AsyncIterator[bytes]:
    for line in lines:
        yield line
    raise httpx.ReadError("the connection was cut", request=request)


def _refused(status: int, detail: Any) -> httpx.Response:
    return httpx.Response(status, json={"detail": detail})
