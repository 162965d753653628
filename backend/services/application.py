"""All services of one backend process, wired together."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from backend.clients.airflow import AirflowClient
from backend.clients.webhooks import WebhookClient
from backend.core.settings import Settings
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.ratelimit.limiter import limit_store
from backend.services.auth import Authenticator
from backend.services.images import Images
from backend.services.monitoring.health import Health
from backend.services.monitoring.metrics import Monitoring
from backend.services.monitoring.model_limits import ModelLimits
from backend.services.notifications.deliveries import Deliveries
from backend.services.notifications.outbox_view import Notifications
from backend.services.notifications.preferences import Preferences
from backend.services.notifications.secret_box import SecretBox
from backend.services.recording.reconciler import Reconciler
from backend.services.recording.retention import EventRetention
from backend.services.runs.control import Runs
from backend.services.runs.logs import TaskLogs
from backend.services.runs.status import Status
from backend.services.streaming.feed import EventFeed
from backend.services.streaming.stream import Streams
from backend.services.templates import Templates
from backend.services.triggering.batch import BatchTriggers
from backend.services.triggering.catalog import Catalog
from backend.services.triggering.rate import TriggerRate
from backend.services.triggering.trigger import Triggers

_LARGE = 2
"""Connections, and threads, for rows of megabytes."""


@dataclass(frozen=True, slots=True)
class Application:
    """The services that endpoints call."""

    settings: Settings
    airflow: AirflowClient
    database: Database
    authenticator: Authenticator
    catalog: Catalog
    triggers: Triggers
    batch_triggers: BatchTriggers
    status: Status
    task_logs: TaskLogs
    runs: Runs
    streams: Streams
    images: Images
    monitoring: Monitoring
    model_limits: ModelLimits
    health: Health
    preferences: Preferences
    templates: Templates
    notifications: Notifications
    deliveries: Deliveries


@asynccontextmanager
async def run_application(
    settings: Settings, *, airflow_transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[Application]:
    """Create the services, run their background tasks (feed, reconciler, deliveries, retention), and stop all on exit.

    Neither the database, Redis nor Airflow has to be reachable: only what depends on them fails until they are.
    """
    # Without a configured secret, in development only, tokens are valid as long as the process lives.
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else secrets.token_hex(32)
    async with AsyncExitStack() as stack:
        database = Database(
            make_async_engine(
                settings.database_url, application="visual_ai_backend", pool_size=settings.database_pool_size
            ),
            settings.redis_address,
        )
        stack.push_async_callback(database.close)
        airflow = AirflowClient(settings, airflow_transport)
        stack.push_async_callback(airflow.close)
        reader = Database(
            make_async_engine(settings.database_url, application="visual_ai_backend", pool_size=1, check=False)
        )
        stack.push_async_callback(reader.close)
        # Sends and receives megabytes in a thread.
        engine = make_engine(settings.database_url, application="visual_ai_backend", pool_size=_LARGE, wait=None)
        stack.callback(engine.dispose)
        large_database = ThreadedDatabase(engine, threads=_LARGE, redis_url=settings.redis_address)
        stack.push_async_callback(large_database.close)
        feed = EventFeed(settings.database_url, reader, settings.redis_address)
        reconciler = Reconciler(settings, airflow, database, large_database)
        catalog = Catalog(airflow)
        status = Status(settings, database, airflow)
        webhooks, box = WebhookClient(settings), SecretBox(secret, "secret of a webhook")
        preferences = Preferences(database, box, webhooks)
        rate = TriggerRate(settings.trigger_rate_per_minute, settings.redis_address)
        stack.push_async_callback(rate.close)
        images = Images(settings, large_database)
        triggers = Triggers(airflow, database, large_database, catalog, images, preferences, rate, settings)
        batch_triggers = BatchTriggers(settings, triggers)
        limits = limit_store(settings, database)
        stack.push_async_callback(limits.close)
        model_limits = ModelLimits(limits)
        deliveries = Deliveries(settings, database, box, webhooks)
        application = Application(
            settings=settings,
            airflow=airflow,
            database=database,
            authenticator=Authenticator(secret, settings.token_lifetime, airflow),
            catalog=catalog,
            triggers=triggers,
            batch_triggers=batch_triggers,
            status=status,
            task_logs=TaskLogs(airflow, status),
            runs=Runs(airflow, database, status),
            streams=Streams(settings, database, feed, status),
            images=images,
            monitoring=Monitoring(database),
            model_limits=model_limits,
            health=Health(settings, airflow, database, feed, reconciler, deliveries, model_limits),
            preferences=preferences,
            templates=Templates(database, catalog),
            notifications=Notifications(database),
            deliveries=deliveries,
        )
        await stack.enter_async_context(feed.running())
        await stack.enter_async_context(reconciler.running())
        await stack.enter_async_context(deliveries.running())
        await stack.enter_async_context(EventRetention(settings, database).running())
        await stack.enter_async_context(batch_triggers.running())
        yield application
