"""Airflow's REST API, version 2.

AirflowError
├── AirflowUnavailable   unreachable, too slow or 5xx; a retry helps
└── AirflowRefused       4xx; `status` and `detail` say why; a retry doesn't help
"""

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from backend.clients.airflow_runs import decode_run, decode_runs
from backend.core.jsonable import loads
from backend.core.large_values import LARGE, in_thread
from backend.core.process_secrets import process_secrets
from backend.core.redaction import hide, redact_text
from backend.core.settings import Settings

T = TypeVar("T")

PAGE = 100
"""Airflow's default `[api] maximum_page_limit`."""

MAX_NAME = 250
"""The longest name of a DAG, a run or a task, in characters."""

LOG_CONNECTIONS = 20
"""Task logs that may be read from Airflow at the same time. Further ones wait."""

_SERVICE_TOKEN_LIFETIME = 600.0


class AirflowError(Exception):
    """Base of the errors that the client raises."""


class AirflowUnavailable(AirflowError):
    """Airflow did not answer, or not with a usable response. A retry helps."""


class AirflowRefused(AirflowError):
    """Airflow answered with a client error. A retry doesn't help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"Airflow answered {status}: {detail}")
        self.status = status
        self.detail = detail


def _decode(text: bytes) -> dict[str, Any]:
    answer = loads(text)
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    return answer


class AirflowClient:
    """A client with pooled connections. Calls are made with the token of the user on whose behalf they are made.

    Without a token a call is made as the service account, whose token is fetched when needed. Calls that are safe to
    repeat are attempted three times, the others once, because the caller must know whether they may have taken effect.
    """

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._username = settings.airflow_username
        self._password: SecretStr = settings.airflow_password
        self._http = httpx.AsyncClient(
            base_url=settings.airflow_url,
            timeout=httpx.Timeout(settings.airflow_timeout, connect=3.0),
            limits=httpx.Limits(max_connections=50, max_keepalive_connections=20),
            transport=transport,
            trust_env=False,
        )
        self._logs = httpx.AsyncClient(
            base_url=settings.airflow_url,
            timeout=httpx.Timeout(settings.airflow_timeout, connect=3.0),
            limits=httpx.Limits(max_connections=LOG_CONNECTIONS, max_keepalive_connections=2),
            transport=transport,
            trust_env=False,
        )
        self._service_token: tuple[str, float] | None = None
        self.calls = 0
        """Requests sent so far, for the metrics."""

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._http.aclose()
        await self._logs.aclose()

    async def login(self, username: str, password: str) -> str:
        """An Airflow token for these credentials. Raises `AirflowRefused` with 401 when they are wrong."""
        answer = await self._send("POST", "/auth/token", token=None, json={"username": username, "password": password})
        return str(answer["access_token"])

    async def username(self, token: str) -> str | None:
        """The name of the user whom a token belongs to, as Airflow spells it; None if this Airflow doesn't say."""
        try:
            return str((await self._read("GET", "/ui/auth/me", token=token))["username"])
        except AirflowRefused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return None
            raise

    async def user(self, username: str) -> dict[str, Any]:
        """A user (FAB), by any spelling of the name: `username`, `active`, `created_on`, and `roles` with their names.

        Raises `AirflowRefused` with 404 if there is none.
        """
        return await self._read("GET", f"/auth/fab/v1/users/{_segment(username)}")

    async def list_users(self) -> list[dict[str, Any]]:
        """All users, as `user` returns each; one call per 100. One may be missing if others are deleted meanwhile."""
        return await self._pages("GET", "/auth/fab/v1/users", "users", params={"order_by": "id"})

    async def role_permissions(self, role: str) -> list[tuple[str, str]]:
        """The permissions of a role, as pairs of action and resource; none if there is no such role any more."""
        try:
            answer = await self._read("GET", f"/auth/fab/v1/roles/{_segment(role)}")
        except AirflowRefused as refused:
            if refused.status == httpx.codes.NOT_FOUND:
                return []
            raise
        return [(str(one["action"]["name"]), str(one["resource"]["name"])) for one in answer.get("actions") or []]

    async def health(self) -> dict[str, Any]:
        """The health of each component, as `/monitor/health` reports it."""
        return await self._send("GET", "/api/v2/monitor/health", token=None)

    async def dag_details(self, dag_id: str, *, token: str | None = None) -> dict[str, Any]:
        """A DAG's details, with its params."""
        return await self._read("GET", f"/api/v2/dags/{_segment(dag_id)}/details", token=token)

    async def dag_tasks(self, dag_id: str, *, token: str | None = None) -> list[dict[str, Any]]:
        """A DAG's tasks, each with the ids of its downstream tasks."""
        answer = await self._read("GET", f"/api/v2/dags/{_segment(dag_id)}/tasks", token=token)
        return list(answer["tasks"])

    async def list_dags(self, *, token: str | None = None) -> list[dict[str, Any]]:
        """All DAGs that the user may see, without their params; one call per 100 DAGs."""
        return await self._pages("GET", "/api/v2/dags", "dags", params={"order_by": "dag_id"}, token=token)

    async def list_broken_dags(self, *, token: str | None = None) -> list[dict[str, Any]]:
        """The DAGs whose file failed to import when it was last parsed, with those that Airflow has put aside since."""
        params = {"order_by": "dag_id", "has_import_errors": True, "exclude_stale": False}
        return await self._pages("GET", "/api/v2/dags", "dags", params=params, token=token)

    async def import_errors(self, *, token: str | None = None) -> list[dict[str, Any]]:
        """The current import errors, each with its file and stack trace."""
        return await self._pages("GET", "/api/v2/importErrors", "import_errors", params={"order_by": "id"}, token=token)

    async def find_assets(
        self, *, uri: str | None = None, name: str | None = None, token: str | None = None
    ) -> list[dict[str, Any]]:
        """Assets whose URI or name contains a text, with others that resemble them."""
        params = {"uri_pattern": uri} if uri is not None else {"name_pattern": name}
        answer = await self._read("GET", "/api/v2/assets", token=token, params={**params, "limit": PAGE})
        return list(answer["assets"])

    async def parse_file(self, file_token: str) -> None:
        """Have the DAG processor parse a file next. The token is in the details of each of its DAGs."""
        await self._exchange("PUT", f"/api/v2/parseDagFile/{_segment(file_token)}", token=await self._token())

    async def trigger(self, dag_id: str, body: bytes, *, token: str | None = None) -> None:
        """Start a run with `airflow_runs.trigger_body`, under an id that the caller chose.

        Raises `AirflowRefused` with 409 when the DAG has a run with this id or this logical date.
        """
        path = f"/api/v2/dags/{_segment(dag_id)}/dagRuns"
        headers = {"Content-Type": "application/json"}
        # The response, which repeats the conf, is not decoded.
        await self._exchange("POST", path, token=token or await self._token(), content=body, headers=headers)

    async def dag_run(self, dag_id: str, dag_run_id: str, *, token: str | None = None) -> dict[str, Any]:
        """One run; a large conf is left as text (`airflow_runs`). Raises `AirflowRefused` with 404 if there is none."""
        return await self._read_as(decode_run, "GET", _run_path(dag_id, dag_run_id), token=token)

    async def task_instance(
        self, dag_id: str, dag_run_id: str, task_id: str, map_index: int, *, token: str | None
    ) -> dict[str, Any]:
        """One task instance. Raises `AirflowRefused` with 404 when there is none."""
        path = f"{_run_path(dag_id, dag_run_id)}/taskInstances/{_segment(task_id)}/{map_index}"
        return await self._read("GET", path, token=token)

    async def pool(self, name: str) -> dict[str, Any]:
        """A pool with its slots. Raises `AirflowRefused` with 404 when there is none."""
        return await self._read("GET", f"/api/v2/pools/{_segment(name)}")

    async def xcom(self, dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> Any:
        """What a task returned. Raises `AirflowRefused` with 404 when it has pushed nothing."""
        path = f"{_run_path(dag_id, dag_run_id)}/taskInstances/{_segment(task_id)}/xcomEntries/return_value"
        return (await self._read("GET", path, params={"map_index": map_index}))["value"]

    async def xcom_text(self, dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> bytes:
        """The same as the JSON text of an object with the `value`, which may be large."""
        path = f"{_run_path(dag_id, dag_run_id)}/taskInstances/{_segment(task_id)}/xcomEntries/return_value"
        return await self._read_as(bytes, "GET", path, params={"map_index": map_index})

    @asynccontextmanager
    async def task_log(
        self, dag_id: str, dag_run_id: str, task_id: str, map_index: int, try_number: int, *, token: str | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A try's current log: newline-delimited JSON, in pieces as they arrive.

        Raises when it is entered and while the pieces are read. Logs have connections of their own, so that a slow
        reader does not delay other calls.
        """
        path = f"{_run_path(dag_id, dag_run_id)}/taskInstances/{_segment(task_id)}/logs/{try_number}"
        headers = {"Authorization": f"Bearer {token or await self._token()}", "Accept": "application/x-ndjson"}
        self.calls += 1
        request = self._logs.build_request("GET", path, params={"map_index": map_index}, headers=headers)
        try:
            response = await self._logs.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                _check(response)
                yield _pieces(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise _out_of_reach(error) from error

    async def fail_run(self, dag_id: str, dag_run_id: str, *, token: str | None) -> dict[str, Any]:
        """Stop a run: Airflow marks it and its unfinished task instances as failed. Safe to repeat."""
        return await self._read("PATCH", _run_path(dag_id, dag_run_id), token=token, json={"state": "failed"})

    async def clear_tasks(
        self, dag_id: str, dag_run_id: str, tasks: Iterable[tuple[str, int]], *, token: str | None
    ) -> dict[str, Any]:
        """Clear task instances (`task_id`, `map_index`) of a run, so that Airflow runs them again."""
        body = {
            "dry_run": False,
            "dag_run_id": dag_run_id,
            "task_ids": [task_id if map_index < 0 else [task_id, map_index] for task_id, map_index in tasks],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        path = f"/api/v2/dags/{_segment(dag_id)}/clearTaskInstances"
        return await self._send("POST", path, token=token or await self._token(), json=body)

    async def respond(self, dag_id: str, dag_run_id: str, task_id: str, map_index: int, *, chosen: str) -> None:
        """Answer what a task asked Airflow to wait for, which wakes the task. Not safe to repeat: Airflow takes one
        response, and refuses another with 409."""
        path = f"{_run_path(dag_id, dag_run_id)}/taskInstances/{_segment(task_id)}/{map_index}/hitlDetails"
        await self._read("PATCH", path, json={"chosen_options": [chosen], "params_input": {}})

    async def runs_updated_since(self, moment: datetime) -> list[dict[str, Any]]:
        """All runs of all DAGs that changed at or after `moment`, oldest change first."""
        return await self._runs({"updated_at_gte": moment.isoformat(), "order_by": "updated_at"})

    async def active_runs(self) -> list[dict[str, Any]]:
        """All runs that are queued or running."""
        return await self._runs({"state": ["queued", "running"], "order_by": "id"})

    async def tasks_updated_since(self, moment: datetime, *, run_after: str | None) -> list[dict[str, Any]]:
        """The task instances of all runs since `run_after` that changed at or after `moment`."""
        params = {"updated_at_gte": moment.isoformat(), "order_by": "id"}
        if run_after is not None:
            params["run_after_gte"] = run_after
        return await self._pages("GET", "/api/v2/dags/~/dagRuns/~/taskInstances", "task_instances", params=params)

    async def task_instances(self, runs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
        """The task instances of these runs (`dag_id`, `dag_run_id`), with one call per 50 runs."""
        run_keys = set(runs)
        found: list[dict[str, Any]] = []
        for batch in _batches(sorted(run_keys), 50):
            body = {
                "dag_ids": sorted({dag_id for dag_id, _ in batch}),
                "dag_run_ids": sorted({run_id for _, run_id in batch}),
                "order_by": "id",
            }
            offset = 0
            while True:
                page = await self._read(
                    "POST",
                    "/api/v2/dags/~/dagRuns/~/taskInstances/list",
                    json={**body, "page_limit": PAGE, "page_offset": offset},
                )
                entries = page["task_instances"]
                found.extend(entry for entry in entries if (entry["dag_id"], entry["dag_run_id"]) in run_keys)
                offset += len(entries)
                if len(entries) < PAGE:
                    break
        return found

    async def failed_tasks(self, dag_id: str, dag_run_id: str, *, limit: int) -> list[dict[str, Any]]:
        """The run's first failed task instances, at most `limit`, in the order in which they ended."""
        body = {
            "dag_ids": [dag_id],
            "dag_run_ids": [dag_run_id],
            "state": ["failed"],
            "order_by": "end_date",
            "page_limit": limit,
        }
        answer = await self._read("POST", "/api/v2/dags/~/dagRuns/~/taskInstances/list", json=body)
        return list(answer["task_instances"])

    async def event_log(
        self, names: Sequence[str], *, since: str | None, dag_id: str | None = None, run_id: str | None = None
    ) -> list[dict[str, Any]]:
        """The last entries of Airflow's event log with these names, newest first, one page; of a DAG, or of a run."""
        params: dict[str, Any] = {"included_events": list(names), "order_by": "-when", "limit": PAGE}
        wanted = {"dag_id": dag_id, "run_id": run_id, "after": since}
        params |= {name: value for name, value in wanted.items() if value is not None}
        return list((await self._read("GET", "/api/v2/eventLogs", params=params))["event_logs"])

    async def _runs(self, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Runs, whose large confs are left as text (`airflow_runs`)."""
        found: list[dict[str, Any]] = []
        while True:
            page = await self._read_as(
                decode_runs, "GET", "/api/v2/dags/~/dagRuns", params={**params, "limit": PAGE, "offset": len(found)}
            )
            found.extend(page)
            if len(page) < PAGE:
                return found

    async def _pages(
        self, method: str, path: str, key: str, params: dict[str, Any], *, token: str | None = None
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self._read(method, path, token=token, params={**params, "limit": PAGE, "offset": len(found)})
            found.extend(page[key])
            if len(page[key]) < PAGE:
                return found

    async def _read(self, method: str, path: str, *, token: str | None = None, **request: Any) -> dict[str, Any]:
        return await self._read_as(_decode, method, path, token=token, **request)

    async def _read_as(
        self, decode: Callable[[bytes], T], method: str, path: str, *, token: str | None = None, **request: Any
    ) -> T:
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception_type(AirflowUnavailable),
            reraise=True,
        ):
            with attempt:
                if token is not None:
                    return await self._send_as(decode, method, path, token=token, **request)
                try:
                    return await self._send_as(decode, method, path, token=await self._token(), **request)
                except AirflowRefused as refused:
                    if refused.status != httpx.codes.UNAUTHORIZED:
                        raise
                    self._service_token = None  # Airflow was set up again with another secret
                    return await self._send_as(decode, method, path, token=await self._token(), **request)
        raise AssertionError("unreachable")  # pragma: no cover  # AsyncRetrying returns or raises

    async def _token(self) -> str:
        now = time.monotonic()
        if self._service_token is None or self._service_token[1] < now:
            token = await self.login(self._username, self._password.get_secret_value())
            self._service_token = (token, now + _SERVICE_TOKEN_LIFETIME)
        return self._service_token[0]

    async def _send(self, method: str, path: str, *, token: str | None, **request: Any) -> dict[str, Any]:
        return await self._send_as(_decode, method, path, token=token, **request)

    async def _send_as(
        self, decode: Callable[[bytes], T], method: str, path: str, *, token: str | None, **request: Any
    ) -> T:
        content = (await self._exchange(method, path, token=token, **request)).content
        try:
            # A list of runs has the confs of all of them.
            return await in_thread(partial(decode, content)) if len(content) > LARGE else decode(content)
        except ValueError as error:
            raise AirflowUnavailable("Airflow's response is not what it is expected to be") from error

    async def _exchange(
        self, method: str, path: str, *, token: str | None, headers: Mapping[str, str] | None = None, **request: Any
    ) -> httpx.Response:
        own = {"Authorization": f"Bearer {token}"} if token else {}
        self.calls += 1
        try:
            response = await self._http.request(method, path, headers={**own, **(headers or {})}, **request)
        except httpx.HTTPError as error:
            raise _out_of_reach(error) from error
        _check(response)
        return response


def _segment(name: str) -> str:
    """A name as one segment of a path. Raises `AirflowRefused` with 404 for a name that Airflow can't have."""
    # `.` and `..` would be resolved as parts of the path, quoted or not.
    if name in ("", ".", "..") or "\x00" in name or len(name) > MAX_NAME:
        raise AirflowRefused(404, "Airflow has no such name")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError:  # half of a surrogate pair
        raise AirflowRefused(404, "Airflow has no such name") from None


def _run_path(dag_id: str, dag_run_id: str) -> str:
    return f"/api/v2/dags/{_segment(dag_id)}/dagRuns/{_segment(dag_run_id)}"


def _out_of_reach(error: httpx.HTTPError) -> AirflowUnavailable:
    return AirflowUnavailable(f"Airflow is out of reach ({type(error).__name__})")


def _check(response: httpx.Response) -> None:
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise AirflowUnavailable(f"Airflow answered {response.status_code}")
    if response.status_code >= httpx.codes.BAD_REQUEST:
        # Airflow may repeat what it was sent, and clients are shown its reason.
        detail = hide(redact_text(_detail(response), limit=2_000), process_secrets())
        raise AirflowRefused(response.status_code, detail)


async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_bytes():
            yield piece
    except httpx.HTTPError as error:
        raise _out_of_reach(error) from error


def _detail(response: httpx.Response) -> str:
    """Why Airflow refused: FastAPI's `detail`, which is a text, a list of validation errors or an object."""
    try:
        detail = response.json().get("detail")
    except (ValueError, AttributeError):
        return response.reason_phrase
    if isinstance(detail, list):
        return "; ".join(str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in detail)
    if isinstance(detail, dict):
        return str(detail.get("reason") or detail.get("message") or response.reason_phrase)
    return str(detail or response.reason_phrase)


def _batches(items: Sequence[tuple[str, str]], size: int) -> Iterable[Sequence[tuple[str, str]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
