"""Triggers runs: each accepted request starts exactly one run, however often it is sent.

Two requests can have the same effect only if they use the same run id. The service therefore chooses the id itself,
instead of letting Airflow generate one:

1. With an `Idempotency-Key`, a *claim* is stored before Airflow is called. It binds the user's key to a hash of the
   request and to the run id. A repeated request finds the claim, and with it the run; a different request under the
   same key is a conflict.
2. Airflow is asked to start the run under that id. If the response is lost, the attempt is repeated, and Airflow's 409
   means that the first attempt took effect.
3. The run is recorded. If that fails, the listener and the reconciler record it under the same execution id, which
   travels in the run's conf.

A claim is released only if Airflow refused the run for certain, so that the key can be used again.
"""

import logging
import secrets
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.clients.airflow_runs import trigger_body
from backend.core.audit import Action, Entry, entry_of
from backend.core.errors.input_error import InputError
from backend.core.large_values import LARGE, apart
from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, TooLarge, Unavailable, field_path, pointer
from backend.core.roles import Principal, Role, covers
from backend.core.run_envelope import SHARED_UPLOADS, SYSTEM_KEY, UPLOADS, signed
from backend.core.settings import Settings
from backend.core.turns import of_input
from backend.db import audit, idempotency, run_keys
from backend.db.engine import Database
from backend.db.idempotency import Claim
from backend.db.runs import executions, observations
from backend.db.runs.executions import RunState
from backend.pictures.inline import SCHEME, with_references
from backend.runtime.langgraph_json import GraphLoadError
from backend.runtime.requested_team import plan_agents
from backend.services.identity.audit_log import AuditLog
from backend.services.images import Images
from backend.services.limits.admission import Admission
from backend.services.notifications.preferences import Preferences
from backend.services.recording.airflow_json import run_state
from backend.services.triggering.catalog import Catalog, Workflow, refusal, unreachable
from backend.services.triggering.conf import EncodedInput, encode_input
from backend.services.triggering.from_template import TemplateReference, TemplateVersion
from backend.services.triggering.inline_pictures import decode_pictures, find_pictures
from backend.services.triggering.rate import TriggerRate
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.uploads import check_uploads

log = logging.getLogger(__name__)

RunSource = Callable[[], Awaitable[tuple[TriggerRequest, dict[str, Any]]]]
"""Completes a request by what it takes over from another run; also returns what is to be added to the run's conf."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run that Airflow has accepted."""

    execution_id: str
    dag_id: str
    dag_run_id: str
    state: str


class Triggers:
    """Starts runs in Airflow.

    A trigger costs two calls to Airflow and two transactions, or one each within a burst; an idempotency key adds one
    transaction, a template one or two.
    """

    def __init__(
        self,
        airflow: AirflowClient,
        database: Database,
        large_database: Database,
        catalog: Catalog,
        images: Images,
        preferences: Preferences,
        rate: TriggerRate,
        admission: Admission,
        audit_log: AuditLog,
        settings: Settings,
    ) -> None:
        self._airflow = airflow
        self._database = database
        self._large_database = large_database
        self._catalog = catalog
        self._images = images
        self._preferences = preferences
        self._rate = rate
        self._admission = admission
        self._audit = audit_log
        self._settings = settings
        self._key: bytes | None = None

    def reference(self, request: TriggerRequest) -> TemplateReference | None:
        """The request's reference to a template, if it has one. Requests of a batch may share it."""
        return TemplateReference(self._database, request.template) if request.template else None

    async def trigger(
        self,
        who: Principal,
        request: TriggerRequest,
        key: str | None = None,
        *,
        template: TemplateReference | None = None,
        source: RunSource | None = None,
    ) -> Started:
        """Start a run, or find the one that was started with the idempotency key `key`.

        `template` is a reference shared with other requests; by default the request's own is used. `source` completes
        the request of a fork. Raises `Forbidden`,
        `NotFound`, `Conflict`, `Invalid`, `TooManyRequests` and `Unavailable`. After the last two a retry helps; with
        the same key it never starts a second run.
        """
        if key is not None and (known := await self._replay(who, request, key)):
            return known
        await self._rate.check(who.username)
        self._check_user(who, request)
        given, carried = request, dict[str, Any]()
        if source is not None:
            request, carried = await source()
        request, workflow, version = await self._completed(who, request, given, template)
        user = request.user_id or who.username
        await self._admission.check_spend(user, request.dag_id)
        options = await self._options(who, request)
        run_key = await self._run_key()
        shared = await check_uploads(self._images, who, user, request.input_data)
        uploads = await self._upload_pictures(who, request)
        encoded = await apart(given.input_data, partial(_encoded, request, workflow, uploads))
        if len(encoded.text) > self._settings.max_input_bytes:
            detail = f"has {len(encoded.text)} bytes; VISUAL_AI_MAX_INPUT_BYTES allows {self._settings.max_input_bytes}"
            raise TooLarge(f"/input_data: {detail}", errors=[FieldError("/input_data", detail)])
        fingerprint = "" if key is None else await apart(given.input_data, given.fingerprint)
        claim = _new_claim(request.dag_id, fingerprint)
        if key is not None:
            claim, new = await self._database.run_autocommit(idempotency.claim, who.username, key, claim)
            if not new:
                await self._check_same(claim, given)
        system = {**_system_values(who, request, claim, key), **(version.system_values() if version else {}), **options}
        pictures = [*carried.pop(UPLOADS, ()), *encoded.uploads]
        system |= {name: list(found) for name, found in ((UPLOADS, pictures), (SHARED_UPLOADS, shared)) if found}
        system |= of_input(carried, request.input_data)
        system = signed(run_key, claim.dag_id, claim.dag_run_id, system)
        try:
            # A claim is kept when there is no slot: the same request gets the same run once there is one.
            async with self._admission.slot(claim.execution_id, user, claim.dag_id):
                await self._start(who, request, claim, encoded, system)
                return await self._record(claim, encoded, system, _entry(who, request, claim))
        except AirflowRefused as refused:
            if key is not None:
                await self._database.run(idempotency.release, who.username, key)
            if refused.status == 409:
                detail = "is that of another run of this workflow, and a workflow has only one for each"
                raise Conflict(f"/logical_date: {detail}", errors=[FieldError("/logical_date", detail)]) from refused
            if refused.status in (400, 422):
                raise Invalid(
                    f"Airflow refused the run: {refused.detail}",
                    errors=[FieldError("/input_data", refused.detail)],
                ) from refused
            raise refusal(refused, f"There is no workflow {request.dag_id!r}.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error

    async def check(self, who: Principal, request: TriggerRequest) -> str:
        """Check a request as `trigger` does, and start nothing; returns the id of its DAG."""
        self._check_user(who, request)
        completed, _, _ = await self._completed(who, request, request)
        await check_uploads(self._images, who, request.user_id or who.username, completed.input_data)
        return completed.dag_id

    async def _completed(
        self,
        who: Principal,
        request: TriggerRequest,
        given: TriggerRequest,
        template: TemplateReference | None = None,
    ) -> tuple[TriggerRequest, Workflow, TemplateVersion | None]:
        """The checked request, completed by its template, with its workflow and the template's version."""
        template = template or self.reference(request)
        version = await template.version() if template is not None else None
        dag_id = request.dag_id if version is None else version.dag_id(request)
        if not covers(who.rights.starts, dag_id) and covers(who.rights.reads, dag_id):
            raise Forbidden(f"You may not trigger the workflow {dag_id!r}.")
        workflow = await self._catalog.get(dag_id, who)
        return await apart(given.input_data, partial(self._checked, request, workflow, version)), workflow, version

    async def _replay(self, who: Principal, request: TriggerRequest, key: str) -> Started | None:
        claim = await self._database.run_autocommit(idempotency.find, who.username, key)
        if claim is None:
            return None
        await self._check_same(claim, request)
        known = await self._database.run_autocommit(executions.heads, [(claim.dag_id, claim.dag_run_id)])
        if not known:
            return await self._find_started(who, claim)
        [head] = known.values()
        return Started(head.id, head.dag_id, head.dag_run_id, head.state)

    async def _find_started(self, who: Principal, claim: Claim) -> Started | None:
        """The run of a claim that was not recorded; None when Airflow does not have it."""
        try:
            run = await run_state(
                await self._airflow.dag_run(claim.dag_id, claim.dag_run_id, token=who.token_for(own=True))
            )
        except AirflowRefused:
            return None
        except AirflowUnavailable as error:
            raise unreachable() from error
        execution_id = await self._database.run(observations.observe, run)
        return Started(execution_id, claim.dag_id, claim.dag_run_id, str(run.state))

    @staticmethod
    async def _check_same(claim: Claim, request: TriggerRequest) -> None:
        if not await apart(request.input_data, partial(request.has_fingerprint, claim.request_hash)):
            raise Conflict("This Idempotency-Key was used with another request; use a new key.")

    @staticmethod
    def _check_user(who: Principal, request: TriggerRequest) -> None:
        if request.user_id not in (None, who.username) and who.role < Role.OP:
            raise Forbidden("user_id: only the roles Op and Admin may start a run on behalf of another user.")

    def _checked(self, request: TriggerRequest, workflow: Workflow, version: TemplateVersion | None) -> TriggerRequest:
        """The request, completed by its template. Raises `Conflict` and `Invalid`."""
        if version is not None:
            request = version.apply(request)
        if SYSTEM_KEY in request.input_data:
            raise Invalid(
                f"/input_data/{SYSTEM_KEY}: is reserved",
                errors=[FieldError(f"/input_data/{SYSTEM_KEY}", "is reserved for the system; omit it")],
            )
        if workflow.import_error is not None:
            raise Conflict(
                f"The workflow {request.dag_id!r} can't be triggered: its file has an import error "
                f"({workflow.import_error})."
            )
        if not workflow.manual:
            raise Conflict(
                f"The workflow {request.dag_id!r} can't be triggered: it was removed, or allows no manual runs."
            )
        if workflow.paused:
            raise Conflict(f"The workflow {request.dag_id!r} is paused; unpause it in Airflow first.")
        faults = workflow.faults(request.input_data) or self._team_faults(workflow, request.input_data)
        if version is not None:
            faults = [version.attributed(fault) for fault in faults]
        if faults:
            raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
        return request

    async def _upload_pictures(self, who: Principal, request: TriggerRequest) -> dict[str, str]:
        """Keep the pictures that stand in the input as uploads of the run's user; returns their references."""
        least = self._settings.inline_picture_bytes
        if not least:
            return {}
        found = await apart(request.input_data, partial(find_pictures, request.input_data, least))
        if not found:
            return {}
        pictures = await decode_pictures(found, self._settings)
        user = request.user_id or who.username
        return {
            one.source: f"{SCHEME}{await self._images.keep(user, one.content, one.facts, one.sha256)}"
            for one in pictures
        }

    async def _run_key(self) -> bytes:
        """The key that signs what is added to the run's conf. Raises `Unavailable`."""
        if self._key is None:
            try:
                self._key = await self._database.run(run_keys.run_key)
            except SQLAlchemyError as error:
                raise Unavailable("The database is out of reach; try again shortly.", retry_after=5) from error
        return self._key

    def _team_faults(self, workflow: Workflow, input_data: dict[str, Any]) -> list[FieldError]:
        """What is wrong with the team of a run, or missing or too long in its input, for a DAG that runs teams."""
        if not workflow.takes("agents"):
            return []
        try:
            arguments = {**workflow.defaults(), **input_data}
            plan_agents(arguments, max_text_chars=self._settings.max_text_chars)
        except GraphLoadError as error:
            if self._settings.langgraph_json is None:  # only the tasks have the project, and check it
                return []
            return [_fault(error)]
        except InputError as error:
            return [_fault(error)]
        return []

    async def _options(self, who: Principal, request: TriggerRequest) -> dict[str, Any]:
        """The run's model and budget, if any. Raises `Unavailable` when the preferences can't be read: a run must not
        start without its user's budget."""
        model, budget = request.model, request.budget
        if model is None or budget is None:
            try:
                preferences = await self._preferences.for_runs(request.user_id or who.username)
            except (SQLAlchemyError, OSError) as error:
                raise Unavailable(
                    "The user's preferences can't be read; try again shortly, or name `model` and `budget`.",
                    retry_after=5,
                ) from error
            model = preferences.default_model if model is None else model
            budget = preferences.budget if budget is None else budget
        return {name: value for name, value in (("model", model), ("budget", budget)) if value}

    async def _start(
        self, who: Principal, request: TriggerRequest, claim: Claim, encoded: EncodedInput, system: dict[str, Any]
    ) -> None:
        body = await apart(
            encoded.text,
            lambda: trigger_body(
                claim.dag_run_id, encoded.conf(system), run_after=request.run_after, logical_date=request.logical_date
            ),
        )
        # The run id is ours: if an earlier attempt took effect, Airflow answers 409, which is success.
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(3),
            wait=wait_random_exponential(multiplier=0.2, max=2.0),
            retry=retry_if_exception_type(AirflowUnavailable),
            reraise=True,
        ):
            with attempt:
                try:
                    await self._airflow.trigger(request.dag_id, body, token=who.airflow_token)
                except AirflowRefused as refused:
                    if refused.status == 409:
                        if request.logical_date is not None:
                            await self._check_ours(who, request, claim)
                        return
                    if attempt.retry_state.attempt_number > 1:  # an earlier attempt may have taken effect
                        raise AirflowUnavailable(str(refused)) from refused
                    raise

    async def _check_ours(self, who: Principal, request: TriggerRequest, claim: Claim) -> None:
        """Whether a conflict is due to our own run. Raises `AirflowRefused` when another run has the logical date."""
        try:
            await self._airflow.dag_run(request.dag_id, claim.dag_run_id, token=who.token_for(own=True))
        except AirflowRefused as refused:
            if refused.status != 404:
                raise AirflowUnavailable(str(refused)) from refused
            raise AirflowRefused(409, "another run has this logical date") from refused

    async def _record(self, claim: Claim, encoded: EncodedInput, system: dict[str, Any], entry: Entry) -> Started:
        conf = {SYSTEM_KEY: system}
        run = RunState(
            claim.dag_id, claim.dag_run_id, "queued", "manual", conf, datetime.now(UTC), input_json=encoded.recorded
        )
        execution_id = claim.execution_id

        def start(connection: Connection) -> str:
            started = executions.start(connection, run)
            audit.add(connection, [entry])
            return started

        try:
            database = self._large_database if len(encoded.recorded) > LARGE else self._database
            execution_id = await database.run_autocommit(start)
        except SQLAlchemyError as error:
            # Airflow has the run: the listener or the reconciler records it, under the id in its conf.
            self._audit.note(entry)
            log.warning("run %s was started but is not recorded yet: %s", claim.dag_run_id, type(error).__name__)
        return Started(execution_id, claim.dag_id, claim.dag_run_id, "queued")


def _entry(who: Principal, request: TriggerRequest, claim: Claim) -> Entry:
    user = request.user_id if request.user_id != who.username else None
    run = f"{claim.dag_id}/{claim.dag_run_id}"
    action: Action = "run.trigger" if request.fork is None else "run.fork"
    return entry_of(who, action, run, template=request.template, on_behalf_of=user, schedule=request.schedule)


def _encoded(request: TriggerRequest, workflow: Workflow, uploads: dict[str, str]) -> EncodedInput:
    if uploads:
        referring = with_references(request.input_data, uploads)
        if not workflow.faults(referring):  # a DAG may insist on `data:` URLs
            return encode_input(referring, uploads.values())
    return encode_input(request.input_data)


def _fault(error: InputError) -> FieldError:
    path = [] if error.field == "input_data" else field_path(error.field)
    return FieldError(pointer("input_data", *path), error.message)


def _new_claim(dag_id: str, fingerprint: str) -> Claim:
    dag_run_id = f"api__{datetime.now(UTC):%Y%m%dT%H%M%S}_{secrets.token_hex(6)}"
    return Claim(fingerprint, dag_id, dag_run_id, str(uuid.uuid4()))


def _system_values(who: Principal, request: TriggerRequest, claim: Claim, key: str | None) -> dict[str, Any]:
    values = {
        "execution_id": claim.execution_id,
        "user_id": request.user_id or who.username,
        "triggered_by": who.username,
        "idempotency_key": key,
    }
    return {name: value for name, value in values.items() if value is not None}
