"""Delivers notifications to users' webhooks: at least once, in any replica, however long that takes.

What waits stands in the database, so nothing is lost with a process. A notification is taken for a time by one
replica; one whose process dies is due again when that time is over.
"""

import asyncio
import logging
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
from backend.core.notifications.delivery_waits import next_wait
from backend.core.notifications.notification_events import CHANNEL
from backend.core.notifications.webhook_signature import EVENT_HEADER, ID_HEADER, SIGNATURE_HEADER, signature
from backend.core.settings import Settings
from backend.db import notifications, preferences
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.notifications import Due, Target
from backend.services.background import in_background
from backend.services.notifications.recipients import fan_out
from backend.services.notifications.secret_box import SecretBox, UnreadableError

log = logging.getLogger(__name__)

LONGEST = timedelta(hours=24)
"""What was not delivered in so long is given up, however few its attempts: what waits for a target that hangs is tried
one by one."""

LEASE_SLACK = 20.0
"""Seconds that a notification stays taken after the limit for its attempt."""

POLL = 15.0
"""Seconds after which the queue is looked at, whether or not anybody said that there is something new."""

POLL_UNHEARD = 1.0
"""The same while the connection that hears of new ones is lost."""

TIDY_EVERY = 60.0
LEAVE_SECONDS = 3.0
"""How long attempts under way have to end when the process does."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    due: Due
    doubtful: bool


class Deliveries:
    """The queue's worker in one process.

    A target gets one notification at a time, in the order of their causes unless one has to be repeated. Of the places,
    half are kept for targets that answer: those whose last attempt failed share the other half, so that targets which
    hang, however many, delay nobody else's notifications.
    """

    def __init__(self, settings: Settings, database: Database, box: SecretBox, client: WebhookClient) -> None:
        self._settings = settings
        self._conninfo = plain_url(settings.database_url)
        self._database = database
        self._box = box
        self._client = client
        self._wake = asyncio.Event()
        self._heard = False
        self._ok, self._reason = False, "not started"
        self._under_way: dict[asyncio.Task[None], _Attempt] = {}
        self._doubtful: set[Target] = set()
        self._tidied = 0.0
        self.sent = 0
        """Notifications that were delivered."""
        self.failed = 0
        """Attempts that failed and are repeated."""
        self.dead = 0
        """Notifications that were given up."""

    def state(self) -> tuple[bool, str]:
        """Whether notifications go out, and if not why."""
        return self._ok, self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver until the context ends."""
        try:
            async with in_background(self._listen(), self._work()):
                yield
        finally:
            await self._leave()

    async def _leave(self) -> None:
        if not self._under_way:
            return
        await asyncio.wait(self._under_way, timeout=LEAVE_SECONDS)
        left = dict(self._under_way)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
            with suppress(SQLAlchemyError, OSError):  # due again when their time is over
                await self._database.run(notifications.give_back, [attempt.due for attempt in left.values()])

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, application_name="visual_ai_notifications", connect_timeout=5
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._heard = True
                    self._wake.set()  # what was missed while not connected
                    while True:
                        # A quiet connection is checked now and then: a dead peer sends nothing.
                        async for _ in connection.notifies(timeout=10):
                            self._wake.set()
                        await connection.execute("SELECT 1")
            except (psycopg.Error, OSError) as error:
                if self._heard:
                    log.warning("new notifications are looked for once a second: %s", type(error).__name__)
                self._heard = False
            await asyncio.sleep(POLL_UNHEARD)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            wait = POLL if self._heard else POLL_UNHEARD
            try:
                while await self._database.run(fan_out):
                    pass
                await self._tidy()
                # Asked before: what becomes due in between is taken now, or found by an early awakening.
                to_next = await self._database.run(notifications.seconds_to_next)
                await self._start_due()
                wait = min(wait, to_next) if to_next is not None else wait
                self._ok, self._reason = True, ""
            except (SQLAlchemyError, OSError) as error:
                self._fail(f"the database is out of reach ({type(error).__name__})")
            except Exception as error:
                self._fail(f"the queue could not be read ({type(error).__name__})")
                log.exception("the queue of notifications could not be read")
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _fail(self, reason: str) -> None:
        if self._ok:
            log.warning("notifications: %s", reason)
        self._ok, self._reason = False, reason

    async def _tidy(self) -> None:
        if time.monotonic() < self._tidied + TIDY_EVERY and self._tidied:
            return
        buried = await self._database.run(notifications.bury, after=LONGEST)
        self.dead += buried
        await self._database.run(notifications.prune, after=timedelta(days=self._settings.notification_retention_days))
        self._tidied = time.monotonic()

    async def _start_due(self) -> None:
        """Begin as many attempts as there are places for."""
        half = self._settings.webhook_concurrency // 2
        # Counted for each claim: attempts end, and begin, while the database picks.
        if (free := half - self._places(doubtful=True)) > 0 and (named := self._doubtful - self._busy()):
            await self._claim(named, doubtful=True, limit=free)
        if (free := self._settings.webhook_concurrency - half - self._places(doubtful=False)) > 0:
            await self._claim(self._doubtful | self._busy(), doubtful=False, limit=free)

    def _busy(self) -> set[Target]:
        return {attempt.due.to for attempt in self._under_way.values()}

    def _places(self, *, doubtful: bool) -> int:
        """How many attempts are under way on places of this kind."""
        return sum(attempt.doubtful is doubtful for attempt in self._under_way.values())

    async def _claim(self, named: set[Target], *, doubtful: bool, limit: int) -> None:
        lease = self._settings.webhook_timeout + LEASE_SLACK
        found = await self._database.run(notifications.claim, named, named_only=doubtful, limit=limit, lease=lease)
        # A target can fail while the database picks, and then is no longer one for the places of those that answer.
        late = [due for due in found if not doubtful and due.to in self._doubtful]
        if late:
            await self._database.run(notifications.give_back, late)
            self._wake.set()
        for due in found:
            if due in late:
                continue
            task = asyncio.create_task(self._deliver(due))
            self._under_way[task] = _Attempt(due, doubtful)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        attempt = self._under_way.pop(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # It is due again when its time is over.
            log.warning("notification %s is tried again later: %s", attempt.due.id, type(error).__name__)

    async def _deliver(self, due: Due) -> None:
        try:
            status = await self._send(due)
        except WebhookRefused as refused:
            await self._give_up(due, refused)
        except WebhookFailed as failed:
            self._doubtful.add(due.to)
            if due.attempt >= self._settings.webhook_attempts:
                await self._give_up(due, failed)
                return
            self.failed += 1
            wait = next_wait(due.attempt, self._settings.webhook_first_wait, failed.retry_after)
            await self._database.run(notifications.failed, due, error=str(failed), status=failed.status, wait=wait)
        else:
            self._doubtful.discard(due.to)
            self.sent += 1
            await self._database.run(notifications.sent, due.id, status)

    async def _give_up(self, due: Due, error: WebhookError) -> None:
        self.dead += 1
        log.warning("notification %s was given up after attempt %s: %s", due.id, due.attempt, error)
        await self._database.run(notifications.failed, due, error=str(error), status=error.status)

    async def _send(self, due: Due) -> int:
        if due.attempt > self._settings.webhook_attempts:  # they left no word of what they met
            raise WebhookRefused("none of its attempts came to an end here")
        target = (await self._database.run(preferences.read, due.user_id)).target(due.target)
        if target is None:
            raise WebhookRefused("the user has no notification target of this name")
        if not target.enabled:
            raise WebhookRefused("the target is switched off")
        try:
            secret = self._box.open(target.sealed_secret)
        except UnreadableError:
            raise WebhookRefused("the target's secret can't be read any more; its owner has to set it again") from None
        body = webhook_body(due, self._settings)
        now = int(time.time())
        headers = {ID_HEADER: due.id, EVENT_HEADER: due.event, SIGNATURE_HEADER: signature(secret, body, now)}
        return await self._client.post(target.url, body, headers)


def webhook_body(due: Due, settings: Settings) -> bytes:
    """What the receiver gets: the same bytes in each attempt."""
    payload = due.payload
    dag_id, dag_run_id = quote(payload["dag_id"], safe=""), quote(payload["dag_run_id"], safe="")
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
