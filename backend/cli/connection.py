"""The connection to a backend: requests with a token, errors as messages for people, and when to retry."""

import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import quote

import httpx

from backend.cli import logins
from backend.cli.address import TOKEN_VARIABLE, Target
from backend.cli.errors import Refused, SignInNeeded, Unreachable
from backend.cli.logins import Login

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)  # a trigger may wait for Airflow three times

SILENCE = 60.0
"""Seconds without data after which a stream counts as lost; the backend sends something every 15."""

_FIRST_WAIT = 1.0
_LONGEST_WAIT = 15.0


class Backoff:
    """When to retry a request to a backend that doesn't respond.

    The waits double from 1 s to 15 s and are randomised, so that many clients don't come back at once. A longer
    `Retry-After` of the backend takes precedence. The retries end after `limit` seconds without success.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._failing_since: float | None = None
        self._next = _FIRST_WAIT

    def wait(self, failure: Unreachable) -> float:
        """Return the seconds to wait before the next retry. Raises `failure` once the limit is reached."""
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since >= self._limit:
            raise failure
        step, self._next = self._next, min(self._next * 2, _LONGEST_WAIT)
        return max(failure.retry_after or 0.0, step * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret

    def succeeded(self) -> None:
        """Start over: the backend has responded."""
        self._failing_since, self._next = None, _FIRST_WAIT


_PAGE = 200
"""Entries of a list that one request asks for."""


class Backend:
    """A backend as one user sees it. Use it as an asynchronous context manager; it can be entered more than once.

    The token is the one given on the command line, or the one that `login` saved. For this checkout's own stack, the
    account in its settings is used to request a token when one is needed.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        login = None if target.token else logins.load(target.url)
        self._username = login.username if login else None
        self._token = target.token or (login.token if login else None)
        self._connection: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        # Proxies from the environment don't apply to this machine.
        self._connection = httpx.AsyncClient(
            base_url=self.target.url, timeout=_TIMEOUT, trust_env=not self.target.local
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.aclose()
            self._connection = None

    async def get(self, path: str, **request: Any) -> dict[str, Any]:
        """Return the JSON object at `path`. Raises `Refused`, `Unreachable` or `SignInNeeded`."""
        return await self._ask("GET", path, **request)

    async def entries(
        self, path: str, name: str, query: Mapping[str, Any], *, most: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the entries of the list `name` at `path`, page by page, at most `most`. Raises the same as `get`."""
        left, cursor = most, None
        while left is None or left > 0:
            limit = _PAGE if left is None else min(left, _PAGE)
            page = await self.get(path, params={**query, "limit": limit, **({"cursor": cursor} if cursor else {})})
            for entry in page[name]:
                yield entry
            left, cursor = None if left is None else left - len(page[name]), page["next_cursor"]
            if cursor is None:
                return

    async def post(self, path: str, **request: Any) -> dict[str, Any]:
        """Send a request that changes something; return the response's JSON object. Raises the same as `get`."""
        if self._token is None:  # reading may not need one, but this does
            await self._renew("This command needs a token.")
        return await self._ask("POST", path, **request)

    @asynccontextmanager
    async def open(self, path: str, *, silence: float | None = None, **request: Any) -> AsyncIterator[httpx.Response]:
        """Yield the response to `GET path` before its body is read; `silence` limits the pauses in it, in seconds.

        Raises the same as `get`, and `Unreachable` when the connection is lost while the body is read.
        """
        headers = request.pop("headers", {})
        timeout = httpx.Timeout(silence or 60.0, connect=5.0)
        for last in (False, True):
            try:
                async with self._http.stream(
                    "GET", path, timeout=timeout, headers={**headers, **self._authorization}, **request
                ) as response:
                    if response.is_success:
                        yield response
                        return
                    await response.aread()
            except httpx.HTTPError as error:
                raise _lost(self.target.url, error) from error
            if response.status_code != httpx.codes.UNAUTHORIZED or last:
                raise _failure(response, self.target.url)
            await self._renew(_detail(response))

    async def sign_in(self, username: str, password: str) -> Login:
        """Request a new token and use it from now on. Raises `Refused` when the backend doesn't accept the password."""
        answer = await self._send("POST", "/auth/token", json={"username": username, "password": password})
        login = Login(
            username, str(answer["role"]), str(answer["access_token"]), time.time() + float(answer["expires_in"])
        )
        self._token = login.token
        return login

    async def put(self, path: str, **request: Any) -> dict[str, Any]:
        """Replace what is at `path`; return the response's JSON object. Raises the same as `get`."""
        if self._token is None:
            await self._renew("This command needs a token.")
        return await self._ask("PUT", path, **request)

    async def delete(self, path: str) -> dict[str, Any]:
        """Delete what is at `path`; return the response's JSON object. Raises the same as `get`."""
        if self._token is None:
            await self._renew("This command needs a token.")
        return await self._ask("DELETE", path)

    async def sign_out(self) -> None:
        """Revoke the current token. Raises `Refused` and `Unreachable`."""
        await self._send("POST", "/auth/logout", headers=self._authorization)

    async def _ask(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = request.pop("headers", {})
        try:
            return await self._send(method, path, headers={**headers, **self._authorization}, **request)
        except Refused as refused:
            if refused.status != httpx.codes.UNAUTHORIZED:
                raise
            await self._renew(refused.message)
        return await self._send(method, path, headers={**headers, **self._authorization}, **request)

    async def _send(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            response = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise _lost(self.target.url, error) from error
        if not response.is_success:
            raise _failure(response, self.target.url)
        if response.status_code == httpx.codes.NO_CONTENT:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _other_server(self.target.url)
        return answer

    async def _renew(self, reason: str) -> None:
        """Get another token after the current one was refused."""
        if self.target.token:
            raise Refused(f"The token of --token or {TOKEN_VARIABLE} isn't accepted: {reason}", 401)
        kept = logins.load(self.target.url)
        if kept is not None and not kept.expired and kept.token != self._token:  # signed in again meanwhile
            self._token, self._username = kept.token, kept.username
            return
        username = kept.username if kept else self._username
        if username is None and self.target.own is not None:
            own = self.target.own
            try:
                await self.sign_in(own.username, own.password.get_secret_value())
            except Refused as refused:
                raise SignInNeeded(refused.message, own.username) from refused
            return
        raise SignInNeeded(reason, username)

    @property
    def _http(self) -> httpx.AsyncClient:
        assert self._connection is not None, "use it in `async with`"  # noqa: S101  # a programming error
        return self._connection

    @property
    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def run_path(dag_id: str, dag_run_id: str, rest: str = "") -> str:
    """The path of a run's snapshot, or of a resource below it."""
    return f"/workflow-status/{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}{rest}"


def _lost(url: str, error: httpx.HTTPError) -> Unreachable:
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Unreachable(f"No response from {url}; is the backend running? ({_text(error)})")
    return Unreachable(f"The connection to {url} was lost ({_text(error)})")


def _text(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _other_server(url: str) -> Unreachable:
    return Unreachable(f"The server at {url} is not the backend.")


def _failure(response: httpx.Response, url: str) -> Refused | Unreachable:
    problem = _problem(response)
    status = response.status_code
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
        after = response.headers.get("retry-after", "")
        retry_after = float(after) if after.isascii() and after.isdigit() else None
        request_id = response.headers.get("x-request-id")
        seen = f" (request {request_id})" if request_id and status == httpx.codes.INTERNAL_SERVER_ERROR else ""
        return Unreachable(f"{_detail(response)}{seen}", retry_after)
    if not problem:
        return _other_server(url)
    faults = [
        (str(fault.get("pointer", "")), str(fault.get("detail", "")))
        for fault in problem.get("errors") or []
        if isinstance(fault, dict)
    ]
    return Refused(_detail(response), status, faults)


def _detail(response: httpx.Response) -> str:
    return str(_problem(response).get("detail") or f"The backend returned status {response.status_code}.")


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
