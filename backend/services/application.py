"""All services of one backend process, wired together."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from backend.clients.airflow import AirflowClient
from backend.clients.webhooks import WebhookClient
from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.ratelimit.limiter import limit_store
from backend.services.identity.accounts import Accounts
from backend.services.identity.audit_log import AuditLog
from backend.services.identity.authenticator import Authenticator
from backend.services.identity.revocations import Revocations
from backend.services.identity.service_tokens import ServiceTokens
from backend.services.identity.throttle import SignInThrottle
from backend.services.images import Images
from backend.services.langgraph.assistants import Assistants
from backend.services.langgraph.conversations import Conversations
from backend.services.langgraph.crons import Crons
from backend.services.langgraph.feed import TurnFeed
from backend.services.langgraph.runs import TurnRuns
from backend.services.langgraph.service import LangGraph
from backend.services.langgraph.states import States
from backend.services.langgraph.store import Store
from backend.services.langgraph.streams import TurnStreams
from backend.services.limits.admission import Admission
from backend.services.limits.limits import Limits
from backend.services.limits.roles import AccountRoles
from backend.services.limits.streams import StreamLimits
from backend.services.monitoring.health import Health
from backend.services.monitoring.metrics import Monitoring
from backend.services.monitoring.model_limits import ModelLimits
from backend.services.notifications.deliveries import Deliveries
from backend.services.notifications.outbox_view import Notifications
from backend.services.notifications.preferences import Preferences
from backend.services.notifications.secret_box import SecretBox
from backend.services.questions import Questions
from backend.services.recording.reconciler import Reconciler
from backend.services.recording.retention import EventRetention
from backend.services.runs.checkpoints import Checkpoints
from backend.services.runs.comparison import Comparisons
from backend.services.runs.control import Runs
from backend.services.runs.logs import TaskLogs
from backend.services.runs.status import Status
from backend.services.runs.tool_calls import ToolCalls
from backend.services.runs.traces import Traces
from backend.services.runs.values import Values
from backend.services.scheduling.assets import Assets
from backend.services.scheduling.firings import Firings
from backend.services.scheduling.reparse import Reparse
from backend.services.scheduling.schedules import Schedules
from backend.services.streaming.feed import EventFeed
from backend.services.streaming.listen import PostgresWakeups
from backend.services.streaming.stream import Streams
from backend.services.templates import Templates
from backend.services.triggering.batch import BatchTriggers
from backend.services.triggering.catalog import Catalog
from backend.services.triggering.fork import Forks
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
    service_tokens: ServiceTokens
    audit: AuditLog
    catalog: Catalog
    triggers: Triggers
    batch_triggers: BatchTriggers
    status: Status
    values: Values
    traces: Traces
    tool_calls: ToolCalls
    task_logs: TaskLogs
    runs: Runs
    checkpoints: Checkpoints
    forks: Forks
    comparisons: Comparisons
    streams: Streams
    images: Images
    monitoring: Monitoring
    model_limits: ModelLimits
    limits: Limits
    admission: Admission
    health: Health
    reconciler: Reconciler
    preferences: Preferences
    templates: Templates
    schedules: Schedules
    firings: Firings
    questions: Questions
    notifications: Notifications
    deliveries: Deliveries
    langgraph: LangGraph


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
        wakeups = PostgresWakeups(plain_url(settings.database_url))
        feed = EventFeed(wakeups, reader, settings.redis_address)
        reconciler = Reconciler(settings, airflow, database, large_database)
        interval, grace = settings.account_check_interval, settings.account_grace
        account_roles = AccountRoles(database)
        admission = Admission(database, account_roles)
        stream_limits = StreamLimits(database, admission, account_roles)
        audit = AuditLog(database, retention_days=settings.audit_retention_days)
        accounts = Accounts(airflow, account_roles, audit, interval=interval, grace=grace)
        stack.push_async_callback(accounts.close)
        revocations = Revocations(database, interval=interval, grace=grace)
        service_tokens = ServiceTokens(database, accounts)
        throttle = SignInThrottle(database)
        authenticator = Authenticator(
            secret, settings.token_lifetime, airflow, accounts, revocations, service_tokens, throttle, audit
        )
        catalog = Catalog(airflow)
        templates = Templates(database, catalog)
        status = Status(settings, database, airflow)
        webhooks, box = WebhookClient(settings), SecretBox(secret, "secret of a webhook")
        preferences = Preferences(database, box, webhooks)
        rate = TriggerRate(settings.trigger_rate_per_minute, database, settings.redis_address)
        stack.push_async_callback(rate.close)
        images = Images(settings, large_database, admission)
        triggers = Triggers(
            airflow, database, large_database, catalog, images, preferences, rate, admission, audit, settings
        )
        runs = Runs(airflow, database, status, admission)
        batch_triggers = BatchTriggers(settings, triggers, admission, audit)
        values = Values(database, status)
        checkpoints = Checkpoints(settings.database_url, database, large_database, status, values)
        store = limit_store(settings, database)
        stack.push_async_callback(store.close)
        model_limits = ModelLimits(store)
        questions = Questions(airflow, database, accounts)
        reparse = Reparse(airflow)
        stack.push_async_callback(reparse.close)
        schedules = Schedules(database, triggers, Assets(airflow), reparse)
        firings = Firings(database, triggers, accounts, service_tokens)
        deliveries = Deliveries(settings, database, box, webhooks)
        application = Application(
            settings=settings,
            airflow=airflow,
            database=database,
            authenticator=authenticator,
            service_tokens=service_tokens,
            audit=audit,
            catalog=catalog,
            triggers=triggers,
            batch_triggers=batch_triggers,
            status=status,
            values=values,
            tool_calls=ToolCalls(database, status),
            traces=Traces(settings.database_url, database, large_database, status, airflow),
            task_logs=TaskLogs(airflow, status, authenticator),
            runs=runs,
            checkpoints=checkpoints,
            forks=Forks(airflow, database, checkpoints, triggers, settings),
            comparisons=Comparisons(database, status),
            streams=Streams(settings, database, feed, status, authenticator, stream_limits),
            images=images,
            monitoring=Monitoring(database),
            model_limits=model_limits,
            limits=Limits(database, admission, account_roles),
            admission=admission,
            health=Health(settings, airflow, database, feed, reconciler, deliveries, model_limits),
            reconciler=reconciler,
            preferences=preferences,
            templates=templates,
            schedules=schedules,
            firings=firings,
            questions=questions,
            notifications=Notifications(database),
            deliveries=deliveries,
            langgraph=_langgraph(
                settings,
                database,
                reader,
                wakeups,
                catalog,
                templates,
                triggers,
                runs,
                questions,
                schedules,
                authenticator,
                stack,
            ),
        )
        await stack.enter_async_context(audit.running())
        await stack.enter_async_context(feed.running())
        await stack.enter_async_context(application.langgraph.feed.running())
        await stack.enter_async_context(reconciler.running())
        await stack.enter_async_context(revocations.running())
        await stack.enter_async_context(service_tokens.running())
        await stack.enter_async_context(account_roles.running())
        await stack.enter_async_context(stream_limits.running())
        await stack.enter_async_context(deliveries.running())
        await stack.enter_async_context(questions.running())
        await stack.enter_async_context(EventRetention(settings, database).running())
        await stack.enter_async_context(batch_triggers.running())
        await stack.enter_async_context(firings.running())
        yield application


def _langgraph(
    settings: Settings,
    database: Database,
    reader: Database,
    wakeups: PostgresWakeups,
    catalog: Catalog,
    templates: Templates,
    triggers: Triggers,
    runs: Runs,
    questions: Questions,
    schedules: Schedules,
    authenticator: Authenticator,
    stack: AsyncExitStack,
) -> LangGraph:
    """What LangGraph's clients talk to."""
    states = States(database)
    assistants, conversations = Assistants(database, catalog, templates), Conversations(database, states)
    turns = TurnRuns(database, assistants, conversations, triggers, runs, questions)
    feed = TurnFeed(wakeups, reader)
    streams = TurnStreams(database, feed, turns, states, authenticator, settings.account_check_interval)
    crons, store = Crons(schedules, assistants, conversations), Store(settings, stack)
    return LangGraph(assistants, conversations, states, turns, streams, crons, store, feed)
