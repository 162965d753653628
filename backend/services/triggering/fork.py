"""Forks runs: starts a new run of the same DAG in which one agent goes on from a state that it had in another run.

A fork is a trigger with more in its signed part: all checks of one apply. The new run's input is that of the source run
as Airflow has it, unless another is given. What the checkpoint of the fork holds is copied, and changed, by the task
(`runtime/forking.py`), which alone may write checkpoints and has the user's graph.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.clients.airflow_runs import CONF_TEXT
from backend.core.jsonable import dumps, loads
from backend.core.large_values import in_thread
from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound, TooLarge
from backend.core.roles import Principal
from backend.core.run_envelope import FORK, SYSTEM_KEY, UPLOADS, Fork
from backend.core.settings import Settings
from backend.db import questions
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.run_keys import trigger_values
from backend.db.runs import checkpoints
from backend.db.runs.checkpoints import Checkpoint, TaskThreads
from backend.services.questions import refusal
from backend.services.runs.checkpoints import THINNED, Checkpoints, TaskPlace, why_none
from backend.services.triggering.catalog import unreachable
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started, Triggers

_PAGE = 500
_START, _END = "__start__", "__end__"
_CARRIED = ("template", "template_version", UPLOADS)
"""What the new run takes over from what the trigger added to the source run."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """A client's request; see `ForkBody`."""

    place: TaskPlace
    checkpoint_id: str | None = None
    node: str | None = None
    agent: str | None = None
    item: int | None = None
    input_data: dict[str, Any] | None = None
    values: dict[str, Any] | None = None
    as_node: str | None = None
    model: str | None = None
    system_prompt: str | None = None


class Forks:
    """Forks runs with the caller's rights: to see the source run, and to start its DAG."""

    def __init__(
        self,
        airflow: AirflowClient,
        database: Database,
        checkpoints: Checkpoints,
        triggers: Triggers,
        settings: Settings,
    ) -> None:
        self._airflow = airflow
        self._database = database
        self._checkpoints = checkpoints
        self._triggers = triggers
        self._settings = settings

    async def fork(self, who: Principal, asked: ForkRequest, key: str | None = None) -> Started:
        """Start the new run, or find the one that was started with the idempotency key `key`.

        Raises what `Triggers.trigger` raises, `NotFound` for an unknown run, task or checkpoint, and `Invalid` for a
        node without a checkpoint, naming the nodes there are, and for an agent that is not clear.
        """
        request = TriggerRequest(asked.place.dag_id, asked.input_data or {}, fork=[*astuple(asked)])
        return await self._triggers.trigger(who, request, key, source=partial(self._resolve, who, asked, request))

    async def _resolve(
        self, who: Principal, asked: ForkRequest, request: TriggerRequest
    ) -> tuple[TriggerRequest, dict[str, Any]]:
        """The request with the input, model and budget of the source run, and what is added to the new run's conf."""
        self._check_sizes(asked)
        run, found = await self._checkpoints.threads_of(who, asked.place)
        fork = await self._fork(run, found, asked)
        if fork.checkpoint_id is not None:
            await self._check_questions(who, run, asked.place)
        conf = await self._conf(who, run)
        system = await self._database.run(trigger_values, run["dag_id"], run["dag_run_id"], conf)
        given = {name: value for name, value in conf.items() if name != SYSTEM_KEY}
        request = replace(
            request,
            input_data=given if asked.input_data is None else asked.input_data,
            model=system.get("model"),
            budget=system.get("budget"),
        )
        return request, {**{name: system[name] for name in _CARRIED if name in system}, FORK: fork.to_json()}

    async def _check_questions(self, who: Principal, run: Row, place: TaskPlace) -> None:
        """A state may stand behind a question, or be changed to what an answer would have made of it. So only those who
        may answer what the task has asked go on from its states."""
        rules = await self._database.run(questions.rules_of_task, str(run["id"]), place.task_id, place.map_index)
        for rule in rules:
            if (why := refusal(who, {**run, **rule})) is not None:
                detail = "The task's agents ask people, whose answers a fork from one of its states could replace."
                raise Forbidden(f"{detail} {why} Without a checkpoint, the agent begins anew and asks again.")

    def _check_sizes(self, asked: ForkRequest) -> None:
        size = len(dumps(asked.values)) if asked.values else 0
        if size > self._settings.max_input_bytes:
            detail = f"has {size} bytes; VISUAL_AI_MAX_INPUT_BYTES allows {self._settings.max_input_bytes}"
            raise TooLarge(f"/values: {detail}", errors=[FieldError("/values", detail)])

    async def _conf(self, who: Principal, run: Row) -> Mapping[str, Any]:
        token = who.token_for(own=who.owns(run["user_id"], run["triggered_by"]))
        try:
            found = await self._airflow.dag_run(run["dag_id"], run["dag_run_id"], token=token)
        except AirflowUnavailable as error:
            raise unreachable() from error
        except AirflowRefused as refused:
            raise Conflict("Airflow no longer has this run, and with it its input.") from refused
        text = found.get(CONF_TEXT)
        conf = found.get("conf") if text is None else await in_thread(partial(loads, text))
        return conf or {}

    async def _fork(self, run: Row, found: TaskThreads, asked: ForkRequest) -> Fork:
        if not found.agents and not found.threads:
            raise Conflict(f"The task {asked.place.task_id!r} has run no agents yet that keep states, or has none.")
        _check_agent(found, asked)
        one: Checkpoint | None = None
        if asked.checkpoint_id is not None:
            one = await self._checkpoints.read(run, found, asked.checkpoint_id)
            if asked.node is not None and asked.node not in one.next:
                raise _invalid("/node", f"does not come next at this checkpoint; {_named(one.next) or 'nothing does'}")
        elif asked.node not in (None, _START):
            one = await self._before(run, found, asked)
        elif asked.values is not None:
            one = await self._first(run, found, asked)
        elif asked.as_node is not None:
            raise _invalid("/as_node", "has no effect without `values`")
        if one is None:
            return self._anew(found, asked)
        thread, namespace = one.row["thread_id"], one.row["checkpoint_ns"]
        agent, item, _ = found.place(thread)
        if asked.agent not in (None, agent) or asked.item not in (None, item):
            raise _invalid("/agent" if asked.agent not in (None, agent) else "/item", "the checkpoint is another one's")
        checkpoint_id = one.row["checkpoint_id"]
        return self._made(
            asked,
            agent=agent,
            thread=thread[len(found.thread_id) :],
            checkpoint_id=checkpoint_id,
            namespace=namespace,
            root_id=one.row["metadata"].get("parents", {}).get("") if namespace else checkpoint_id,
            node=asked.node or ", ".join(one.next) or None,
        )

    def _anew(self, found: TaskThreads, asked: ForkRequest) -> Fork:
        """Without a checkpoint the agent begins anew."""
        names = [row["agent_name"] for row in found.agents]
        batch = any(row["batch"] for row in found.agents)
        team = not batch and (found.thread_id not in found.threads if found.threads else len(names) > 1)
        if team and asked.agent is None and (asked.model or asked.system_prompt):
            raise _invalid("/agent", f"is missing; {_named(names)}")
        if batch:
            suffix = "" if asked.item is None else f"/{asked.item}"
        else:
            suffix = f"/{asked.agent}" if team and asked.agent else ""
        agent = asked.agent or (None if team else names[0] if names else None)
        return self._made(asked, agent=agent, thread=suffix, checkpoint_id=None, node=None)

    @staticmethod
    def _made(asked: ForkRequest, **more: Any) -> Fork:
        return Fork(
            dag_run_id=asked.place.dag_run_id,
            task_id=asked.place.task_id,
            map_index=asked.place.map_index,
            values=asked.values,
            as_node=asked.as_node,
            other_input=asked.input_data is not None,
            model=asked.model,
            system_prompt=asked.system_prompt,
            **more,
        )

    async def _before(self, run: Row, found: TaskThreads, asked: ForkRequest) -> Checkpoint:
        """The last state before a node ran."""
        first: dict[tuple[str | None, int | None], Checkpoint] = {}
        names: set[str] = set()
        async for one in self._all(run, found, asked):
            names |= set(one.next)
            if asked.node in one.next:
                first.setdefault(found.place(one.row["thread_id"])[:2], one)
        if not first:
            reason = _named(sorted(names - {_START, _END}))
            reason += f". {THINNED}" if reason and found.thinned else ""
            raise _invalid("/node", f"has no checkpoint; {reason or why_none(run, found)}")
        if len(first) > 1:
            several = _named([str(agent) for agent, _ in first])
            raise _invalid("/agent", f"is missing, and several have such a node: {several}")
        return next(iter(first.values()))

    async def _first(self, run: Row, found: TaskThreads, asked: ForkRequest) -> Checkpoint:
        """The state that the agent's input has become, before the first node ran."""
        first: dict[tuple[str | None, int | None], Checkpoint] = {}
        async for one in self._all(run, found, asked):
            if not one.row["checkpoint_ns"] and _START not in one.next and one.row["metadata"].get("step", 0) <= 0:
                first[found.place(one.row["thread_id"])[:2]] = one
        if not first:
            raise NotFound(f"The first state is not among the checkpoints. {why_none(run, found)}")
        if len(first) > 1:
            raise _invalid("/agent", f"is missing; {_named([str(agent) for agent, _ in first])}")
        return next(iter(first.values()))

    async def _all(self, run: Row, found: TaskThreads, asked: ForkRequest) -> AsyncIterator[Checkpoint]:
        after = None
        wanted = found.of(asked.agent, asked.item)
        if asked.item is None and len(wanted) > 1 and found.place(wanted[0])[1] is not None:
            raise _invalid("/item", "is missing: name the item of the batch, or a checkpoint")
        while True:
            page = await self._database.run(checkpoints.read_page, str(run["id"]), wanted, after=after, limit=_PAGE)
            for one in page:
                yield one
            if len(page) < _PAGE:
                return
            last = page[-1].row
            after = (last["checkpoint_id"], last["thread_id"], last["checkpoint_ns"])


def _check_agent(found: TaskThreads, asked: ForkRequest) -> None:
    names = [row["agent_name"] for row in found.agents]
    if asked.agent is not None and asked.agent not in names:
        raise _invalid("/agent", f"is none of the task's agents; {_named(names)}")
    if asked.item is not None and not any(row["batch"] for row in found.agents):
        raise _invalid("/item", "the task is no batch")


def _named(names: list[str]) -> str:
    if not names:
        return ""
    more = ", …" if len(names) > 20 else ""
    return f"there {'is' if len(names) == 1 else 'are'} {', '.join(names[:20])}{more}"


def _invalid(place: str, detail: str) -> Invalid:
    return Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
