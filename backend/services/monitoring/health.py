"""The health of the system and of each of its components.

Components are checked concurrently, each within `CHECK_TIMEOUT`, so that one that hangs doesn't hide the others.
Results are cached for as long as their `…_CACHE_SECONDS`, so that many clients don't multiply the checks. Background
services report their own state, and the agents' rate limiter reports providers that it has found down, which counts for
more than a provider's answer to a check. The system is `unhealthy` if a required component is, and `degraded` if any
other component isn't healthy.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, Protocol, TypeVar

import httpx
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from backend.clients.airflow import AirflowClient, AirflowError
from backend.core.redaction import redact_text
from backend.core.settings import Settings
from backend.db import schema
from backend.db.engine import Database
from backend.services.monitoring.model_limits import ModelLimits, Outage

log = logging.getLogger(__name__)

CHECK_TIMEOUT = 3.0
"""Seconds that a component has to respond."""

EXTERNAL_CACHE_SECONDS = 30.0
"""How long the check of a service outside the installation is cached."""

AIRFLOW_CACHE_SECONDS = 2.0
READY_CACHE_SECONDS = 1.0
NAMED_OUTAGES = 3

Status = Literal["healthy", "degraded", "unhealthy"]
T = TypeVar("T")


class ComponentHealth(BaseModel):
    """One component. The system is unhealthy when a required one is, and degraded when another is not healthy."""

    status: Status
    required: bool = False
    latency_ms: float | None = Field(None, description="Milliseconds the check took, where a call was made.")
    reason: str | None = None
    since: datetime | None = Field(None, description="Since when it has not been healthy, where that is known.")


class SystemHealth(BaseModel):
    """The health of the system and of its components."""

    status: Status
    components: dict[str, ComponentHealth]
    checked_at: datetime


class Watched(Protocol):
    """A background service that reports its own state."""

    def state(self) -> tuple[bool, str]:
        """Whether it works, and if not, why."""


class Health:
    """Checks the components. Calls to services outside the installation go through `transport`, which tests replace."""

    def __init__(
        self,
        settings: Settings,
        airflow: AirflowClient,
        database: Database,
        feed: Watched,
        reconciler: Watched,
        notifications: Watched,
        limits: ModelLimits,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._airflow_client = airflow
        self._database_engine = database
        self._feed = feed
        self._reconciler = reconciler
        self._notifications = notifications
        self._limits = limits
        self._transport = transport
        self._airflow = _Cached(self._check_airflow, AIRFLOW_CACHE_SECONDS)
        self._langfuse = _Cached(self._check_langfuse, EXTERNAL_CACHE_SECONDS)
        self._model_provider = _Cached(self._check_model_provider, EXTERNAL_CACHE_SECONDS)
        self._ready = _Cached(self._check_ready, READY_CACHE_SECONDS)

    def feed_connected(self) -> bool:
        """Whether the event feed is connected to the source of new events."""
        return self._feed.state()[0]

    async def system(self) -> SystemHealth:
        """The health of every component, within little more than `CHECK_TIMEOUT` seconds. Never raises."""
        database, airflow, langfuse, provider, outages = await asyncio.gather(
            self._check_database(),
            self._airflow.get(),
            self._langfuse.get(),
            self._model_provider.get(),
            self._limits.outages(),
        )
        components = {
            "database": database,
            **airflow,
            "event_feed": _watched(self._feed),
            "reconciler": _watched(self._reconciler),
            "notifications": _watched(self._notifications),
            "langfuse": langfuse,
            "model_provider": _with_outages(provider, outages),
        }
        return SystemHealth(status=_overall(components), components=components, checked_at=datetime.now(UTC))

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether requests can be served: the database responds and has the schema that this version expects."""
        return await self._ready.get()

    async def _check_ready(self) -> tuple[bool, dict[str, str]]:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                missing = await self._database_engine.run(schema.missing)
        except (SQLAlchemyError, TimeoutError, OSError) as error:
            return False, {"database": _database_reason(error), "schema": "unknown"}
        if missing:
            return False, {
                "database": "ok",
                "schema": f"not migrated: {len(missing)} tables are missing or outdated",
            }
        return True, {"database": "ok", "schema": "ok"}

    async def _check_database(self) -> ComponentHealth:
        watch = _Watch()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._database_engine.run(schema.ping)
        except (SQLAlchemyError, TimeoutError, OSError) as error:
            return watch.component("unhealthy", _database_reason(error), required=True)
        return watch.component("healthy", required=True)

    async def _check_airflow(self) -> dict[str, ComponentHealth]:
        watch = _Watch()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                answer = await self._airflow_client.health()
        except TimeoutError:
            reason = f"no response within {CHECK_TIMEOUT:g} s"
        except AirflowError as error:
            reason = redact_text(str(error), limit=200)
        else:
            return {
                "airflow_api": watch.component("healthy", required=True),
                **{f"airflow_{name}": _airflow_part(name, part, answer) for name, part in _AIRFLOW_PARTS.items()},
            }
        unknown = "unknown: the Airflow API does not respond"
        return {
            "airflow_api": watch.component("unhealthy", reason, required=True),
            **{
                f"airflow_{name}": ComponentHealth(status="unhealthy", required=part.required, reason=unknown)
                for name, part in _AIRFLOW_PARTS.items()
            },
        }

    async def _check_langfuse(self) -> ComponentHealth:
        settings = self._settings
        public, secret = settings.langfuse_public_key, settings.langfuse_secret_key
        if not public and secret is None:
            return ComponentHealth(status="healthy", reason="not configured: tracing is off")
        if not settings.langfuse_tracing:
            return ComponentHealth(status="healthy", reason="disabled by LANGFUSE_TRACING_ENABLED")
        if not public or secret is None:
            missing = "LANGFUSE_SECRET_KEY" if public else "LANGFUSE_PUBLIC_KEY"
            return ComponentHealth(status="degraded", reason=f"{missing} is missing: tracing is off")
        # An endpoint that needs the keys of a project: the health endpoint would respond with any keys.
        keys = base64.b64encode(f"{public}:{secret.get_secret_value()}".encode()).decode()
        watch = _Watch()
        response = await self._get(f"{settings.langfuse_url}/api/public/projects", {"Authorization": f"Basic {keys}"})
        lost = "runs continue, but their traces may be lost"
        if isinstance(response, str):
            return watch.component("degraded", f"{response}; {lost}")
        if response.is_success:
            return watch.component("healthy")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            reason = (
                f"the keys are rejected ({response.status_code}): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
            )
            return watch.component("degraded", f"{reason}; {lost}")
        return watch.component("degraded", f"responded with {response.status_code}; {lost}")

    async def _check_model_provider(self) -> ComponentHealth:
        settings = self._settings
        if settings.openai_api_key is None and settings.openai_base_url is None:
            provider, named, _ = settings.default_model.partition(":")
            reason = "no model key is set: offline local models are used"
            if named and provider not in ("openai", "local"):
                reason = f"not checked: the default model is one of {provider}"
            return ComponentHealth(status="healthy", reason=reason)
        key = settings.openai_api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        base = (settings.openai_base_url or "https://api.openai.com/v1").rstrip("/")
        watch = _Watch()
        response = await self._get(f"{base}/models", headers)
        if isinstance(response, str):
            return watch.component("degraded", response)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return watch.component("unhealthy", f"key rejected ({response.status_code})")
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
            return watch.component("healthy", "responds, but does not list its models")
        if response.is_success:
            return watch.component("healthy")
        return watch.component("degraded", f"responded with {response.status_code}")

    async def _get(self, url: str, headers: dict[str, str] | None = None) -> httpx.Response | str:
        """The response, or the reason why there is none."""
        try:
            async with (
                asyncio.timeout(CHECK_TIMEOUT),
                httpx.AsyncClient(transport=self._transport, timeout=CHECK_TIMEOUT) as client,
            ):
                return await client.get(url, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            return f"no response within {CHECK_TIMEOUT:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            # The text of the error may contain the address or the key.
            return f"unreachable ({type(error).__name__})"


@dataclass(frozen=True, slots=True)
class _AirflowPart:
    required: bool
    never_seen: Status
    without: str


# Airflow reports a null status for a triggerer or DAG processor that has never run.
_AIRFLOW_PARTS = {
    "metadatabase": _AirflowPart(True, "unhealthy", "Airflow cannot read its database"),
    "scheduler": _AirflowPart(True, "unhealthy", "no run starts or continues"),
    "dag_processor": _AirflowPart(False, "unhealthy", "new and changed DAG files are not noticed"),
    "triggerer": _AirflowPart(False, "degraded", "deferred tasks wait"),
}


def _airflow_part(name: str, part: _AirflowPart, answer: dict[str, Any]) -> ComponentHealth:
    said = answer.get(name)
    said = said if isinstance(said, dict) else {}
    status = said.get("status")
    if status == "healthy":
        return ComponentHealth(status="healthy", required=part.required)
    if status is None:
        reason = f"not reported by Airflow: {part.without}"
        return ComponentHealth(status=part.never_seen, required=part.required, reason=reason)
    heartbeat = _age(said.get(f"latest_{name}_heartbeat"))
    seen = f" (last heartbeat {heartbeat:.0f} s ago)" if heartbeat is not None else ""
    return ComponentHealth(status="unhealthy", required=part.required, reason=f"{part.without}{seen}")


def _age(moment: object) -> float | None:
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(str(moment))).total_seconds())
    except (ValueError, TypeError):
        return None


def _watched(service: Watched) -> ComponentHealth:
    works, reason = service.state()
    reason = redact_text(reason, limit=200)
    return ComponentHealth(status="healthy" if works else "degraded", reason=reason or None)


def _with_outages(provider: ComponentHealth, outages: list[Outage]) -> ComponentHealth:
    """Failures of the agents' own calls count for more than a response to the check."""
    if not outages:
        return provider
    reasons = [
        f"{outage.model} is down: several calls in a row have failed, and new ones are refused; "
        + (f"the next probe is in {outage.retry_in:.0f} s" if outage.retry_in else "a probe is in flight")
        for outage in outages[:NAMED_OUTAGES]
    ]
    if len(outages) > NAMED_OUTAGES:
        reasons.append(f"and {len(outages) - NAMED_OUTAGES} more")
    if provider.status != "healthy" and provider.reason:
        reasons.append(provider.reason)
    status: Status = "unhealthy" if provider.status == "unhealthy" else "degraded"
    return provider.model_copy(update={"status": status, "reason": "; ".join(reasons), "since": outages[0].since})


def _overall(components: dict[str, ComponentHealth]) -> Status:
    if any(part.required and part.status == "unhealthy" for part in components.values()):
        return "unhealthy"
    return "healthy" if all(part.status == "healthy" for part in components.values()) else "degraded"


def _database_reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no response within {CHECK_TIMEOUT:g} s"
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    log.warning("the health check of the database failed: %s", type(error).__name__)
    return f"unavailable ({type(error).__name__})"


class _Watch:
    """Measures how long a check takes."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def component(self, status: Status, reason: str | None = None, *, required: bool = False) -> ComponentHealth:
        """The component that was checked."""
        latency = round((time.perf_counter() - self._started) * 1000, 1)
        return ComponentHealth(status=status, required=required, latency_ms=latency, reason=reason)


class _Cached(Generic[T]):
    """The result of a check that is made at most once per `lifetime` seconds, and by one caller at a time."""

    def __init__(self, check: Callable[[], Awaitable[T]], lifetime: float) -> None:
        self._check = check
        self._lifetime = lifetime
        self._lock = asyncio.Lock()
        self._result: tuple[T, float] | None = None

    async def get(self) -> T:
        """The cached result, or a new one if that has expired."""
        async with self._lock:
            if self._result is None or self._result[1] < time.monotonic():
                self._result = (await self._check(), time.monotonic() + self._lifetime)
            return self._result[0]
