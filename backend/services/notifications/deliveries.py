"""Delivers notifications to users' webhooks, at least once, from any replica of the backend.

The queue is the table `notifications`, so nothing is lost when a process dies. A replica claims a due notification for
the duration of a lease, posts it, and records the outcome: sent, failed with a time for the next attempt, or dead. If
the process dies in between, the lease expires and another replica claims the notification. A receiver may therefore get
the same notification twice; its id is the same in all attempts.

A failed attempt is repeated with exponential backoff, at most `webhook_attempts` times and within `MAX_AGE`. A target
gets one notification at a time, in the order of their causes unless one has to be repeated. Half of the concurrent
deliveries are reserved for targets whose last attempt succeeded; all others share the rest, so that any number of
targets that hang can't delay the notifications of everyone else.
"""

import asyncio
import hashlib
import hmac
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from backend.clients.webhooks import WebhookClient, WebhookError, WebhookFailed, WebhookRefused
from backend.core.jsonable import dumps
from backend.core.settings import Settings
from backend.db import notifications, preferences
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.notification_causes import CHANNEL
from backend.db.notifications import Due, Target
from backend.services.background import in_background
from backend.services.notifications.recipients import fan_out
from backend.services.notifications.secret_box import SecretBox, UnreadableError

log = logging.getLogger(__name__)

MAX_AGE = timedelta(hours=24)
"""An older notification is given up however few attempts were made: a target that hangs gets them one at a time."""

LEASE_SLACK = 20.0
"""Seconds that a lease lasts beyond the timeout of the attempt."""

POLL_SECONDS = 15.0
"""How often the queue is read even if no new notification was announced."""

POLL_DISCONNECTED_SECONDS = 1.0
"""The same while the connection that receives announcements is lost."""

CLEAN_UP_SECONDS = 60.0
SHUTDOWN_SECONDS = 3.0
"""How long attempts in flight may take when the process stops."""

MAX_BACKOFF = 3600.0
MAX_RETRY_AFTER = 6 * 3600.0
"""Seconds that the wait between attempts grows to, and that a receiver may ask for with `Retry-After`."""

ID_HEADER = "X-Visual-AI-Id"
"""The id of the notification. It is the same in all attempts, so that receivers can recognize duplicates."""

EVENT_HEADER = "X-Visual-AI-Event"
SIGNATURE_HEADER = "X-Visual-AI-Signature"


@dataclass(frozen=True, slots=True)
class _Attempt:
    due: Due
    failing: bool
    """Whether it occupies a slot for targets whose last attempt failed."""


class Deliveries:
    """Delivers what is due, in one process."""

    def __init__(self, settings: Settings, database: Database, box: SecretBox, client: WebhookClient) -> None:
        self._settings = settings
        self._conninfo = plain_url(settings.database_url)
        self._database = database
        self._box = box
        self._client = client
        self._wake = asyncio.Event()
        self._listening = False
        self._ok, self._reason = False, "not started"
        self._in_flight: dict[asyncio.Task[None], _Attempt] = {}
        self._failing: set[Target] = set()
        self._cleaned_up_at = float("-inf")
        self.sent = 0
        """Notifications that were delivered."""
        self.failed = 0
        """Attempts that failed and will be repeated."""
        self.dead = 0
        """Notifications that were given up."""

    def state(self) -> tuple[bool, str]:
        """Whether notifications are being delivered, and if not, why."""
        return self._ok, self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver until the context ends."""
        try:
            async with in_background(self._listen(), self._work()):
                yield
        finally:
            await self._stop()

    async def _stop(self) -> None:
        if not self._in_flight:
            return
        await asyncio.wait(self._in_flight, timeout=SHUTDOWN_SECONDS)
        cancelled = dict(self._in_flight)
        for task in cancelled:
            task.cancel()
        if cancelled:
            await asyncio.wait(cancelled)
            with suppress(SQLAlchemyError, OSError):  # otherwise they are due again when their leases expire
                await self._database.run(notifications.release, [attempt.due for attempt in cancelled.values()])

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, application_name="visual_ai_notifications", connect_timeout=5
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._listening = True
                    self._wake.set()  # something may have been announced before
                    while True:
                        # A query now and then detects a dead connection, which would only be silent.
                        async for _ in connection.notifies(timeout=10):
                            self._wake.set()
                        await connection.execute("SELECT 1")
            except (psycopg.Error, OSError) as error:
                if self._listening:
                    log.warning("polling for notifications, as LISTEN lost its connection: %s", type(error).__name__)
                self._listening = False
            await asyncio.sleep(POLL_DISCONNECTED_SECONDS)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            wait = POLL_SECONDS if self._listening else POLL_DISCONNECTED_SECONDS
            try:
                while await self._database.run(fan_out):
                    pass
                await self._clean_up()
                # Read before claiming: what becomes due in between is then claimed now or in the next round.
                to_next = await self._database.run(notifications.seconds_to_next)
                await self._start_due()
                wait = min(wait, to_next) if to_next is not None else wait
                self._ok, self._reason = True, ""
            except (SQLAlchemyError, OSError) as error:
                self._fail(f"the database is unavailable ({type(error).__name__})")
            except Exception as error:
                self._fail(f"the queue could not be read ({type(error).__name__})")
                log.exception("the notification queue could not be read")
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _fail(self, reason: str) -> None:
        if self._ok:
            log.warning("notifications: %s", reason)
        self._ok, self._reason = False, reason

    async def _clean_up(self) -> None:
        if time.monotonic() < self._cleaned_up_at + CLEAN_UP_SECONDS:
            return
        self.dead += await self._database.run(notifications.expire, after=MAX_AGE)
        await self._database.run(notifications.prune, after=timedelta(days=self._settings.notification_retention_days))
        self._cleaned_up_at = time.monotonic()

    async def _start_due(self) -> None:
        """Start as many attempts as there are free slots."""
        half = self._settings.webhook_concurrency // 2
        # Counted again before each claim: attempts end while the database is choosing.
        if (free := half - self._slots_used(failing=True)) > 0 and (failing := self._failing - self._busy()):
            await self._claim(failing, failing=True, limit=free)
        if (free := self._settings.webhook_concurrency - half - self._slots_used(failing=False)) > 0:
            await self._claim(self._failing | self._busy(), failing=False, limit=free)

    def _busy(self) -> set[Target]:
        return {attempt.due.to for attempt in self._in_flight.values()}

    def _slots_used(self, *, failing: bool) -> int:
        return sum(attempt.failing is failing for attempt in self._in_flight.values())

    async def _claim(self, named: set[Target], *, failing: bool, limit: int) -> None:
        lease = self._settings.webhook_timeout + LEASE_SLACK
        claimed = await self._database.run(notifications.claim, named, named_only=failing, limit=limit, lease=lease)
        # A target may have failed while the database was choosing; it has no claim to the other slots any more.
        misplaced = [due for due in claimed if not failing and due.to in self._failing]
        if misplaced:
            await self._database.run(notifications.release, misplaced)
            self._wake.set()
        for due in claimed:
            if due in misplaced:
                continue
            task = asyncio.create_task(self._deliver(due))
            self._in_flight[task] = _Attempt(due, failing)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        attempt = self._in_flight.pop(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its outcome could not be recorded, so it is due again when its lease expires.
            log.warning("notification %s will be retried: %s", attempt.due.id, type(error).__name__)

    async def _deliver(self, due: Due) -> None:
        try:
            status = await self._send(due)
        except WebhookRefused as refused:
            await self._give_up(due, refused)
        except WebhookFailed as failed:
            self._failing.add(due.to)
            if due.attempt >= self._settings.webhook_attempts:
                await self._give_up(due, failed)
                return
            self.failed += 1
            wait = next_wait(due.attempt, self._settings.webhook_first_wait, failed.retry_after)
            await self._database.run(notifications.failed, due, error=str(failed), status=failed.status, wait=wait)
        else:
            self._failing.discard(due.to)
            self.sent += 1
            await self._database.run(notifications.sent, due.id, status)

    async def _give_up(self, due: Due, error: WebhookError) -> None:
        self.dead += 1
        log.warning("notification %s was given up after attempt %s: %s", due.id, due.attempt, error)
        await self._database.run(notifications.failed, due, error=str(error), status=error.status)

    async def _send(self, due: Due) -> int:
        if due.attempt > self._settings.webhook_attempts:  # each time, the process died before it had an outcome
            raise WebhookRefused("none of its attempts was completed")
        target = (await self._database.run(preferences.read, due.user_id)).target(due.target)
        if target is None:
            raise WebhookRefused("the user has no notification target of this name")
        if not target.enabled:
            raise WebhookRefused("the target is disabled")
        try:
            secret = self._box.open(target.sealed_secret)
        except UnreadableError:
            raise WebhookRefused(
                "the target's secret can't be decrypted any more; its owner has to set it again"
            ) from None
        body = webhook_body(due, self._settings)
        now = int(time.time())
        headers = {ID_HEADER: due.id, EVENT_HEADER: due.event, SIGNATURE_HEADER: signature(secret, body, now)}
        return await self._client.post(target.url, body, headers)


def webhook_body(due: Due, settings: Settings) -> bytes:
    """The body of the request, the same bytes in each attempt."""
    payload = due.payload
    dag_id, dag_run_id = quote(payload["dag_id"], safe=""), quote(payload["dag_run_id"], safe="")
    if due.event == "question":
        asked = payload["question"]
        payload = {**payload, "question": {**asked, "url": settings.question_link(asked["question_id"])}}
    document = {
        "id": due.id,
        "event": due.event,
        "occurred_at": due.occurred_at,
        "user_id": due.user_id,
        **payload,
        "status_url": f"{settings.public_url.rstrip('/')}/workflow-status/{dag_id}/{dag_run_id}",
        "airflow_url": f"{settings.airflow_link_base}/dags/{dag_id}/runs/{dag_run_id}",
    }
    return dumps(document).encode()


def signature(secret: str, body: bytes, at: int) -> str:
    """The value of `SIGNATURE_HEADER`: `t=<at>,v1=<hex HMAC-SHA256 of "<at>.<body>">`, `at` in seconds since 1970.

    The time is signed as well, so that a receiver can reject old requests.
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def next_wait(attempt: int, first: float, asked_for: float | None = None) -> float:
    """Seconds to wait after this attempt, counted from 1: `first`, doubled with each attempt, half of it random.

    If the receiver asked for a longer wait, that is used with up to a tenth more, so that not all notifications that
    it has put off come back at the same moment.
    """
    backoff = min(first * 2.0 ** min(attempt - 1, 30), MAX_BACKOFF) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
    if asked_for is None or asked_for < backoff:
        return backoff
    return min(asked_for, MAX_RETRY_AFTER) * random.uniform(1.0, 1.1)  # noqa: S311  # no secret
