"""`run`, `cancel`, `retry` and `logout --everywhere`: commands that change something."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backend.cli import logins
from backend.cli.connection import Backend, Backoff
from backend.cli.errors import SUCCESS, CliError, Unreachable
from backend.cli.inputs import local_picture, parse_pairs, read_object
from backend.cli.session import say
from backend.cli.watch import Watch, how_to_watch

_TRIGGER_RETRIES = 30.0
"""Seconds for which a trigger without a response is retried."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The arguments of `run`."""

    dag_id: str | None
    template: str | None
    pairs: list[str]
    json_source: str | None
    image: str | None
    model: str | None
    user: str | None
    key: str | None


class StartRun:
    """Starts one run and never a second one, however often it is called."""

    def __init__(self, request: RunRequest, *, watch: bool, as_json: bool, give_up_after: float) -> None:
        self._request = request
        self._key = request.key or f"cli-{uuid.uuid4()}"
        # Standard input can be read only once.
        self._given = read_object(request.json_source) if request.json_source else {}
        self._picture = local_picture(request.image) if request.image else None
        self._watch = watch
        self._as_json = as_json
        self._give_up_after = give_up_after
        self._body: dict[str, Any] | None = None
        self._watching: Watch | None = None

    async def __call__(self, backend: Backend) -> int:
        """Start the run, print its id and watch it if asked to."""
        if self._watching is None:
            accepted = await self._start(backend)
            self._report(accepted)
            if not self._watch:
                return SUCCESS
            self._watching = Watch(
                accepted["dag_id"], accepted["dag_run_id"],
                as_json=self._as_json, cursor=0, give_up_after=self._give_up_after, known=True,
            )  # fmt: skip
        return await self._watching(backend)

    async def _start(self, backend: Backend) -> dict[str, Any]:
        if self._body is None:
            self._body = await self._make_body(backend)
        backoff = Backoff(_TRIGGER_RETRIES)
        while True:
            try:
                return await backend.post("/workflows/trigger", json=self._body, headers={"Idempotency-Key": self._key})
            except Unreachable as failure:
                try:
                    wait = backoff.wait(failure)
                except Unreachable:
                    failure.add_note(f"The run may have started. To retry safely: --idempotency-key {self._key}")
                    raise
                say(f"{failure.message}; retrying in {wait:.0f} s")
                await asyncio.sleep(wait)

    async def _make_body(self, backend: Backend) -> dict[str, Any]:
        request = self._request
        workflow = await backend.get(f"/workflows/{quote(await self._dag_id(backend), safe='')}")
        given = {**self._given, **parse_pairs(request.pairs, workflow["input_schema"])}
        if request.image is not None:
            if "image_url" in given:
                raise CliError("--image: image_url is also given as an input")
            given["image_url"] = request.image
            if self._picture is not None:
                given["image_url"] = (await backend.post("/images", files={"file": self._picture}))["image_url"]
        more = {
            "dag_id": request.dag_id, "template": request.template, "model": request.model, "user_id": request.user,
        }  # fmt: skip
        return {"input_data": given} | {k: v for k, v in more.items() if v is not None}

    async def _dag_id(self, backend: Backend) -> str:
        """The workflow to start; its schema determines how inputs are parsed."""
        if self._request.dag_id is not None:
            return self._request.dag_id
        if self._request.template is None:
            raise CliError("DAG_ID: missing; name a workflow, or a template with --template")
        name, _, version = (quote(part, safe="") for part in self._request.template.partition("@"))
        place = f"/templates/{name}/versions/{version}" if version else f"/templates/{name}"
        return str((await backend.get(place))["dag_id"])

    def _report(self, accepted: dict[str, Any]) -> None:
        if self._as_json:
            shown = {"id": None, "event": "accepted", "data": accepted} if self._watch else accepted
            print(json.dumps(shown), flush=True)
            return
        print(accepted["dag_run_id"], flush=True)
        if not self._watch:
            say(how_to_watch(accepted["dag_id"], accepted["dag_run_id"]))


class ChangeRun:
    """Cancels or retries a run once, however often it is called, and then continues with `then` if there is one."""

    def __init__(self, dag_id: str, dag_run_id: str, change: str, *, as_json: bool, then: Watch | None) -> None:
        self._path = f"/workflows/{quote(dag_id, safe='')}/runs/{quote(dag_run_id, safe='')}/{change}"
        self._name = dag_run_id
        self._as_json = as_json
        self._then = then
        self._done = False

    async def __call__(self, backend: Backend) -> int:
        """Send the request and print the run's new state."""
        if not self._done:
            response = await backend.post(self._path)
            self._done = True
            if not self._as_json:
                say(f"{self._name} is {response['state']}.")
            elif self._then is None:
                print(json.dumps(response))
        return SUCCESS if self._then is None else await self._then(backend)


class SignOutEverywhere:
    """Ends all sessions of the user who is signed in, or of another one."""

    def __init__(self, username: str | None, *, service_tokens: bool) -> None:
        self._username = username
        self._service_tokens = service_tokens

    async def __call__(self, backend: Backend) -> int:
        """End them."""
        name = quote(self._username, safe="") if self._username is not None else "me"
        await backend.post(f"/users/{name}/sign-out", params={"service_tokens": self._service_tokens})
        if self._username is None:
            logins.forget(backend.target.url)
        say(f"Signed {self._username or 'you'} out everywhere.")
        return SUCCESS
