"""`checkpoints`, `fork` and `compare`: the states of agents over time, and runs that go on from one of them."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backend.cli import formatting
from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS, CliError
from backend.cli.formatting import safe
from backend.cli.session import say
from backend.cli.tables import print_table
from backend.cli.watch import Watch, how_to_watch

_COLUMNS = ("CHECKPOINT", "AGENT", "STEP", "WROTE", "NEXT", "AT", "BYTES")
_COMPARED = ("TASK", "AGENT", "NODE", "LEFT", "RIGHT", "OUTPUT")


def task_path(dag_id: str, dag_run_id: str, task_id: str, rest: str) -> str:
    """The path of a resource of a task."""
    parts = (quote(part, safe="") for part in (dag_id, "runs", dag_run_id, "tasks", task_id))
    return f"/workflows/{'/'.join(parts)}/{rest}"


@dataclass(frozen=True, slots=True)
class ListCheckpoints:
    """Prints checkpoints, newest first; with a `checkpoint`, the state there."""

    path: str
    query: dict[str, Any]
    checkpoint: str | None
    limit: int
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Print them; as JSON, each page as soon as it arrives."""
        if self.checkpoint is not None:
            found = await backend.get(f"{self.path}/{quote(self.checkpoint, safe='')}", params=self.query)
            text = json.dumps(found) if self.as_json else json.dumps(found["values"], indent=2, ensure_ascii=False)
            print(text if self.as_json else safe(text))
            return SUCCESS
        rows: list[tuple[str, ...]] = []
        async for one in backend.entries(self.path, "checkpoints", self.query, most=self.limit):
            if self.as_json:
                print(json.dumps(one))
            else:
                rows.append(_cells(one))
        if not rows and not self.as_json:
            page = await backend.get(self.path, params={**self.query, "limit": 1})
            say(safe(page["note"] or "No checkpoints."))
        elif not self.as_json:
            print_table(_COLUMNS, rows, wrapped=(3, 4), nothing="No checkpoints.")
        return SUCCESS


class ForkRun:
    """Forks a run once, however often it is called, and then watches the new one if asked to."""

    def __init__(
        self, path: str, body: dict[str, Any], *, key: str, watch: bool, as_json: bool, give_up_after: float
    ) -> None:
        self._path = path
        self._body = body
        self._key = key
        self._watch = watch
        self._as_json = as_json
        self._give_up_after = give_up_after
        self._watching: Watch | None = None

    async def __call__(self, backend: Backend) -> int:
        """Start the new run and print its id."""
        if self._watching is None:
            accepted = await backend.post(self._path, json=self._body, headers={"Idempotency-Key": self._key})
            if self._as_json and not self._watch:
                print(json.dumps(accepted), flush=True)
            elif not self._as_json:
                print(accepted["dag_run_id"], flush=True)
            if not self._watch:
                if not self._as_json:
                    say(how_to_watch(accepted["dag_id"], accepted["dag_run_id"]))
                return SUCCESS
            self._watching = Watch(
                accepted["dag_id"], accepted["dag_run_id"],
                as_json=self._as_json, cursor=0, give_up_after=self._give_up_after, known=True,
            )  # fmt: skip
        return await self._watching(backend)


@dataclass(frozen=True, slots=True)
class CompareRuns:
    """Prints two runs side by side."""

    left: str
    right: str
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Compare them."""
        found = await backend.get("/workflow-status/compare", params={"left": self.left, "right": self.right})
        if self.as_json:
            print(json.dumps(found))
            return SUCCESS
        sides = [found[side] for side in ("left", "right")]
        rows = [("run", "", "", *(_run(side) for side in sides), "")]
        for agent in found["agents"]:
            rows.append(_compared(agent, ""))
            rows += [_compared({**agent, **node}, node["node"]) for node in agent["nodes"]]
        print_table(_COMPARED, rows, wrapped=(1, 2), nothing="Nothing to compare.")
        for name in ("input", "result"):
            for change in found[f"{name}_changes"]:
                place = f"{name}{change['pointer']}"
                values = (formatting.first_line(change[side] or formatting.NOTHING, 200) for side in ("left", "right"))
                print(f"{safe(place)}: {' → '.join(values)}")
        return SUCCESS


def fork_body(
    given: dict[str, Any], *, input_json: dict[str, Any] | None, values_json: dict[str, Any] | None
) -> dict[str, Any]:
    """The body of a fork, of the options that were given."""
    body = {name: value for name, value in given.items() if value is not None}
    if input_json is not None:
        body["input_data"] = input_json
    if values_json is not None:
        body["values"] = values_json
    return body


def run_name(text: str) -> str:
    """Check a run's name in `compare`. Raises `CliError`."""
    dag_id, _, dag_run_id = text.partition("/")
    if not dag_id or not dag_run_id:
        raise CliError(f"{text!r} is not of the form DAG_ID/DAG_RUN_ID")
    return text


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    item = "" if one["item"] is None else f"[{one['item']}]"
    cells = (
        one["checkpoint_id"], f"{one['agent'] or formatting.NOTHING}{item}", str(one["step"]), ", ".join(one["nodes"]),
        ", ".join(one["next"]), formatting.moment(one["created_at"]), f"{one['bytes']:,}",
    )  # fmt: skip
    return tuple(formatting.first_line(cell, 200) for cell in cells)


def _run(side: dict[str, Any]) -> str:
    tokens = side["usage"]["input_tokens"] + side["usage"]["output_tokens"]
    took = formatting.duration(formatting.age(side["started_at"], side["finished_at"]))
    return f"{side['state']}, {took}, {tokens:,} tokens, {formatting.cost(side['cost_usd'])}"


def _compared(one: dict[str, Any], node: str) -> tuple[str, ...]:
    sides = []
    for side in (one["left"], one["right"]):
        if side is None:
            sides.append(formatting.NOTHING)
            continue
        tokens = side["input_tokens"] + side["output_tokens"]
        took = formatting.duration((side["latency_ms"] or 0) / 1000)
        sides.append(f"{side['state']}, {took}, {tokens:,} tokens, {formatting.cost(side['cost_usd'])}")
    both = one["left"] is not None and one["right"] is not None
    output = ("same" if one["same_output"] else "differs") if both else ""
    return tuple(formatting.first_line(cell, 200) for cell in (one["task_id"], one["agent"], node, *sides, output))
