"""The catalogue of workflows: the DAGs that a user may trigger, and the input that each accepts.

DAGs are read from Airflow with the caller's own token, so Airflow decides who sees what. A DAG's details are kept for
`FRESH` seconds per user, so that a burst of triggers costs one look-up, and looked up again shortly before, so that a
steady stream of triggers never waits for one.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.json_schema import JsonSchema, SchemaFaultError
from backend.core.problems import FieldError, Forbidden, NotFound, Problem, Unauthorized, Unavailable, pointer
from backend.core.roles import Principal, covers, either
from backend.core.scheduling.dag_ids import is_schedule_dag
from backend.services.background import retrieve

FRESH = 2.0
"""Seconds for which a DAG's details are used; a DAG that is paused is noticed this much later."""

REFRESH = 1.5
"""Age in seconds from which details are looked up again in the background."""

PARALLEL = 8
"""Look-ups of DAGs' details that one listing has in progress at the same time."""

MAX_FAULTS = 100
"""Violations of a DAG's schema that are reported for one input."""

_MAX_CACHED = 1_000


@dataclass(frozen=True, slots=True)
class WorkflowTask:
    """A task of a DAG. `downstream` are the ids of the tasks that follow it; a `mapped` task has several instances."""

    task_id: str
    label: str
    operator: str | None
    mapped: bool
    downstream: list[str]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A DAG. `schema` is the JSON Schema (2020-12) of `input_data`.

    With an `import_error` it can't be triggered: the DAG's file no longer loads, for this reason.
    """

    dag_id: str
    display_name: str
    description: str | None
    tags: list[str]
    paused: bool
    schema: dict[str, Any]
    manual: bool = True
    parsed_at: str | None = None
    import_error: str | None = None
    _checks: JsonSchema | None = field(default=None, repr=False, compare=False)

    def defaults(self) -> dict[str, Any]:
        """The values of parameters that an input does not set."""
        properties = self.schema.get("properties", {})
        return {name: schema["default"] for name, schema in properties.items() if "default" in schema}

    def takes(self, name: str) -> bool:
        """Whether the DAG has such a parameter."""
        return name in self.schema.get("properties", {})

    def faults(self, input_data: dict[str, Any], *, partial: bool = False) -> list[FieldError]:
        """What in `input_data` violates the schema, by JSON pointer into the request's body.

        Nothing is reported as missing from `partial` input.
        """
        if self._checks is None:
            return []
        faults = []
        for fault in self._checks.faults(input_data)[:MAX_FAULTS]:
            if fault.missing is not None:
                if not partial:
                    faults.append(FieldError(pointer("input_data", *fault.path, fault.missing), "is required"))
                continue
            message = fault.message
            if fault.keyword == "pattern" and fault.description:  # says more than the expression does
                message = f"{str(fault.instance)[:80]!r} has the wrong form; expected: {fault.description}"
            faults.append(FieldError(pointer("input_data", *fault.path), message[:500]))
        return list(dict.fromkeys(faults))


class Catalog:
    """Reads DAGs from Airflow with the caller's rights."""

    def __init__(self, airflow: AirflowClient) -> None:
        self._airflow = airflow
        self._details: dict[tuple[str, str], tuple[float, Workflow]] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[Workflow]] = {}
        self._parsed: dict[str, tuple[Any, Workflow]] = {}
        self._tasks: dict[str, tuple[str | None, list[WorkflowTask]]] = {}

    async def get(self, dag_id: str, who: Principal) -> Workflow:
        """One workflow that the user may see or start. Raises `NotFound`, `Forbidden` or `Unavailable`."""
        token = who.airflow_token
        if "\x00" in dag_id or not covers(
            either(who.rights.reads, who.rights.starts), dag_id
        ):  # no name contains it, and Airflow's database would reject the query
            raise NotFound(f"There is no workflow {dag_id!r}.")
        key = (sha256((token or "").encode()).hexdigest(), dag_id)
        cached = self._details.get(key)
        age = time.monotonic() - cached[0] if cached is not None else FRESH
        if cached is not None and age < FRESH:
            if age > REFRESH:
                self._fetch(key, dag_id, token)  # a steady stream of triggers never waits for it
            return cached[1]
        try:
            return await asyncio.shield(self._fetch(key, dag_id, token))
        except AirflowRefused as refused:
            raise refusal(refused, f"There is no workflow {dag_id!r}.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error

    async def tasks(self, workflow: Workflow, who: Principal) -> list[WorkflowTask] | None:
        """The tasks of a workflow that the user may see; None when Airflow does not let them see its tasks.

        They are read again only after the DAG has been parsed again. Raises `Unavailable`.
        """
        token = who.token_for(own=True)  # whoever sees a run of their own sees its tasks
        known = self._tasks.get(workflow.dag_id)
        if known is None or known[0] is None or known[0] != workflow.parsed_at:
            try:
                found = await self._airflow.dag_tasks(workflow.dag_id, token=token)
            except AirflowRefused as refused:
                if refused.status in (403, 404):
                    return None
                raise refusal(refused, "") from refused
            except AirflowUnavailable as error:
                raise unreachable() from error
            if len(self._tasks) >= _MAX_CACHED:
                self._tasks.clear()
            known = self._tasks[workflow.dag_id] = (workflow.parsed_at, [_task(task) for task in found])
        return known[1]

    def _fetch(self, key: tuple[str, str], dag_id: str, token: str | None) -> asyncio.Task[Workflow]:
        """The look-up of this DAG for this user that is in progress, or a new one."""
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._look_up(key, dag_id, token))
            task.add_done_callback(retrieve)
        return task

    async def _look_up(self, key: tuple[str, str], dag_id: str, token: str | None) -> Workflow:
        try:
            began = time.monotonic()
            details = await self._airflow.dag_details(dag_id, token=token)
            workflow = _workflow(details)
            if details.get("has_import_errors"):
                errors = await self._import_errors(token)
                workflow = replace(workflow, import_error=errors.get(_file(details), UNKNOWN_ERROR))
            if len(self._details) >= _MAX_CACHED:
                self._details.clear()
            self._details[key] = (began, workflow)
            return workflow
        finally:
            del self._fetching[key]

    async def list_all(self, who: Principal) -> list[Workflow]:
        """All workflows that the user may see, with those whose file no longer loads.

        Only a DAG's details contain its params. They are read again after the DAG was parsed again, `PARALLEL` at a
        time; otherwise a listing costs one call per 100 DAGs and one for those that are broken. A DAG that disappears
        meanwhile is left out.
        """
        token, reads = who.airflow_token, who.rights.reads
        try:
            listed, broken = await asyncio.gather(
                self._airflow.list_dags(token=token), self._airflow.list_broken_dags(token=token)
            )
            errors = await self._import_errors(token) if broken else {}
            dags = {dag["dag_id"]: dag for dag in listed if _triggerable(dag)}
            for dag in broken:
                if _file(dag) in errors or not dag.get("is_stale"):  # a file that was deleted has no error any more
                    dags[dag["dag_id"]] = dag
            readable = [dags[name] for name in sorted(dags) if covers(reads, name) and not is_schedule_dag(name)]
            return await self._all_described(readable, errors, token)
        except AirflowRefused as refused:
            raise refusal(refused, "There are no workflows.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error

    async def _all_described(
        self, dags: list[dict[str, Any]], errors: dict[tuple[Any, Any], str], token: str | None
    ) -> list[Workflow]:
        slots = asyncio.Semaphore(PARALLEL)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._described(dag, errors, token, slots)) for dag in dags]
        except ExceptionGroup as failures:  # the first one ended the others
            raise failures.exceptions[0] from failures
        return [workflow for task in tasks if (workflow := task.result()) is not None]

    async def _described(
        self, dag: dict[str, Any], errors: dict[tuple[Any, Any], str], token: str | None, slots: asyncio.Semaphore
    ) -> Workflow | None:
        """A listed DAG with its params; None when it has disappeared, or Airflow does not show its details."""
        dag_id = dag["dag_id"]
        known = self._parsed.get(dag_id)
        if known is None or known[0] is None or known[0] != dag["last_parsed_time"]:
            async with slots:
                try:
                    details = await self._airflow.dag_details(dag_id, token=token)
                except AirflowRefused as refused:
                    if refused.status in (403, 404):
                        return None
                    raise
            if len(self._parsed) >= _MAX_CACHED and dag_id not in self._parsed:
                self._parsed.pop(next(iter(self._parsed)))
            known = self._parsed[dag_id] = (dag["last_parsed_time"], _workflow(details))
        error = errors.get(_file(dag), UNKNOWN_ERROR) if dag.get("has_import_errors") else None
        return replace(known[1], paused=bool(dag.get("is_paused")), import_error=error)

    async def _import_errors(self, token: str | None) -> dict[tuple[Any, Any], str]:
        """Why files fail to import, by bundle and file; empty when Airflow does not let the user see it."""
        try:
            found = await self._airflow.import_errors(token=token)
        except AirflowRefused as refused:
            if refused.status == 403:
                return {}
            raise
        return {(error["bundle_name"], error["filename"]): _reason(error) for error in found}


def refusal(refused: AirflowRefused, missing: str) -> Problem:
    """The problem to report to our client when Airflow has refused a request. `missing` is the message for 404."""
    if refused.status == 401:
        return Unauthorized("Airflow no longer accepts this token; get a new one from POST /auth/token.")
    if refused.status == 403:
        return Forbidden("Airflow does not permit this user to do this.")
    if refused.status == 404:
        return NotFound(missing)
    return Unavailable(f"Airflow refused the request ({refused.status}).", retry_after=5)


def unreachable() -> Unavailable:
    """The problem to report when Airflow did not answer."""
    return Unavailable("Airflow is out of reach; try again shortly.", retry_after=5)


UNKNOWN_ERROR = "Airflow could not import its file"
"""The import error of a DAG when Airflow does not show it to the user."""


def _file(dag: dict[str, Any]) -> tuple[Any, Any]:
    """The bundle and the path of a DAG's file, which name it in import errors."""
    return dag.get("bundle_name"), dag.get("relative_fileloc")


def _reason(error: dict[str, Any]) -> str:
    """An import error in one line: the file, and the last line of the stack trace, which names the exception."""
    lines = str(error.get("stack_trace") or "").strip().splitlines()
    return f"{error['filename']}: {lines[-1].strip() if lines else UNKNOWN_ERROR}"[:500]


def _task(task: dict[str, Any]) -> WorkflowTask:
    return WorkflowTask(
        task_id=task["task_id"],
        label=task.get("task_display_name") or task["task_id"],
        operator=task.get("operator_name"),
        mapped=bool(task.get("is_mapped")),
        downstream=sorted(task.get("downstream_task_ids") or []),
    )


def _workflow(details: dict[str, Any]) -> Workflow:
    schema = input_schema(details.get("params") or {})
    try:
        checks = JsonSchema(schema)
    except SchemaFaultError:  # Airflow accepts what the standard does not, and checks the input itself
        checks = None
    return Workflow(
        dag_id=details["dag_id"],
        display_name=details.get("dag_display_name") or details["dag_id"],
        description=details.get("description"),
        tags=[tag["name"] for tag in details.get("tags") or []],
        paused=bool(details.get("is_paused")),
        schema=schema,
        manual=_triggerable(details),
        parsed_at=details.get("last_parsed_time"),
        _checks=checks,
    )


def _triggerable(dag: dict[str, Any]) -> bool:
    kinds = dag.get("allowed_run_types")
    return not dag.get("is_stale") and not dag.get("has_import_errors") and (kinds is None or "manual" in kinds)


def input_schema(params: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a run's input, from a DAG's params as Airflow's API returns them.

    A param is required if it has no default and does not accept null, or if its schema has `"x-required": true`; its
    default is then only for Airflow's own form. As in Airflow, keys that are not params are accepted.
    """
    properties: dict[str, Any] = {}
    required = []
    for name, param in params.items():
        schema = dict(param.get("schema") or {})
        if param.get("description"):
            schema.setdefault("description", param["description"])
        value = param.get("value")
        if schema.pop("x-required", False):
            required.append(name)
        elif value is not None:
            schema["default"] = value
        elif schema and not _accepts_null(schema):
            required.append(name)
        properties[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
    }


def _accepts_null(schema: dict[str, Any]) -> bool:
    try:
        return JsonSchema(schema).is_valid(None)
    except SchemaFaultError:
        return True  # Airflow says what is missing
