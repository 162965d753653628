"""`run`: start a run, and follow it if wanted."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS, CliError, Unreachable
from backend.cli.following import Following, come_back
from backend.cli.inputs import local_picture, parse_pairs, read_object
from backend.cli.patience import Patience
from backend.cli.session import say

_PATIENCE = 30.0
"""Seconds for which a trigger without an answer is repeated."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run to start, as it is asked for."""

    dag_id: str | None
    template: str | None
    pairs: list[str]
    json_source: str | None
    image: str | None
    model: str | None
    user: str | None
    key: str | None


class Starting:
    """Starts one run. It never starts a second one, however often it is called."""

    def __init__(self, order: Order, *, watch: bool, as_json: bool, patience: float) -> None:
        self._order = order
        self._key = order.key or f"cli-{uuid.uuid4()}"
        # Standard input can be read once.
        self._given = read_object(order.json_source) if order.json_source else {}
        self._picture = local_picture(order.image) if order.image else None
        self._watch = watch
        self._as_json = as_json
        self._patience = patience
        self._body: dict[str, Any] | None = None
        self._following: Following | None = None

    async def __call__(self, backend: Backend) -> int:
        """Start it, tell its id, and follow it if that is wanted."""
        if self._following is None:
            accepted = await self._start(backend)
            self._tell(accepted)
            if not self._watch:
                return SUCCESS
            self._following = Following(
                accepted["dag_id"], accepted["dag_run_id"],
                as_json=self._as_json, cursor=0, patience=self._patience, known=True,
            )  # fmt: skip
        return await self._following(backend)

    async def _start(self, backend: Backend) -> dict[str, Any]:
        if self._body is None:
            self._body = await self._make_body(backend)
        patience = Patience(_PATIENCE)
        while True:
            try:
                return await backend.post("/workflows/trigger", json=self._body, headers={"Idempotency-Key": self._key})
            except Unreachable as failure:
                try:
                    wait = patience.wait(failure)
                except Unreachable:
                    failure.advice = f"Perhaps the run was started. To be sure of one: --idempotency-key {self._key}"
                    raise
                say(f"{failure.message}; trying again in {wait:.0f} s")
                await asyncio.sleep(wait)

    async def _make_body(self, backend: Backend) -> dict[str, Any]:
        order = self._order
        workflow = await backend.get(f"/workflows/{quote(await self._dag_id(backend), safe='')}")
        given = {**self._given, **parse_pairs(order.pairs, workflow["input_schema"])}
        if order.image is not None:
            if "image_url" in given:
                raise CliError("--image: image_url is given as an input, too")
            given["image_url"] = order.image
            if self._picture is not None:
                given["image_url"] = (await backend.post("/images", files={"file": self._picture}))["image_url"]
        more = {
            "dag_id": order.dag_id, "template": order.template, "model": order.model, "user_id": order.user,
        }  # fmt: skip
        return {"input_data": given} | {k: v for k, v in more.items() if v is not None}

    async def _dag_id(self, backend: Backend) -> str:
        """The workflow, whose schema says how inputs are read."""
        if self._order.dag_id is not None:
            return self._order.dag_id
        if self._order.template is None:
            raise CliError("DAG_ID: is missing; name a workflow, or a template with --template")
        name, _, version = (quote(part, safe="") for part in self._order.template.partition("@"))
        place = f"/templates/{name}/versions/{version}" if version else f"/templates/{name}"
        return str((await backend.get(place))["dag_id"])

    def _tell(self, accepted: dict[str, Any]) -> None:
        if self._as_json:
            shown = {"id": None, "event": "accepted", "data": accepted} if self._watch else accepted
            print(json.dumps(shown), flush=True)
            return
        print(accepted["dag_run_id"], flush=True)
        if not self._watch:
            say(come_back(accepted["dag_id"], accepted["dag_run_id"]))
