"""The settings of the system, read once from the environment and `.env`."""

import json
import re
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import Field, IPvAnyNetwork, SecretStr, computed_field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.core.errors.fallbacks import parse_fallbacks
from backend.core.errors.input_error import InputError
from backend.core.errors.policy import MAX_SECONDS, ErrorPolicy, parse_error_policy
from backend.core.models.modes import ModelModes
from backend.core.models.names import check_names
from backend.core.ratelimit.configured import ModelLimit

MIN_SECRET_BYTES = 32
"""RFC 7518 section 3.2: an HS256 key is at least as long as the hash."""


class SettingsError(ValueError):
    """The environment is not a valid configuration. A retry doesn't help."""


class Settings(BaseSettings):
    """Everything that can be configured. Frozen; get it with `get_settings()`.

    Variables of other products keep their names (`OPENAI_API_KEY`, `POSTGRES_*`, `LANGFUSE_*`); ours start with
    `VISUAL_AI_`. Sizes are in bytes, times in seconds, dimensions of images in pixels.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    environment: Literal["development", "production"] = Field("development", validation_alias="VISUAL_AI_ENVIRONMENT")

    # Database
    postgres_host: str = Field("127.0.0.1", validation_alias="POSTGRES_HOST")
    postgres_port: int = Field(5432, validation_alias="POSTGRES_PORT", ge=1, le=65535)
    postgres_db: str = Field("airflow", validation_alias="POSTGRES_DB")
    postgres_user: str = Field("airflow", validation_alias="POSTGRES_USER")
    postgres_password: SecretStr = Field(SecretStr("airflow"), validation_alias="POSTGRES_PASSWORD")
    database_url_override: SecretStr | None = Field(None, validation_alias="VISUAL_AI_DATABASE_URL")
    redis_url: SecretStr | None = Field(None, validation_alias="REDIS_URL")
    database_pool_size: int = Field(10, validation_alias="VISUAL_AI_DATABASE_POOL_SIZE", ge=1, le=200)

    # Airflow
    airflow_url: str = Field("http://127.0.0.1:8080", validation_alias="VISUAL_AI_AIRFLOW_URL")
    airflow_public_url: str | None = Field(None, validation_alias="VISUAL_AI_AIRFLOW_PUBLIC_URL")
    airflow_username: str = Field("airflow", validation_alias="VISUAL_AI_AIRFLOW_USERNAME")
    airflow_password: SecretStr = Field(SecretStr("airflow"), validation_alias="VISUAL_AI_AIRFLOW_PASSWORD")
    airflow_timeout: float = Field(15.0, validation_alias="VISUAL_AI_AIRFLOW_TIMEOUT", gt=0)

    # Backend
    public_url: str = Field("http://localhost:8000", validation_alias="VISUAL_AI_PUBLIC_URL")
    pages_url: str | None = Field(None, validation_alias="VISUAL_AI_PAGES_URL")
    jwt_secret: SecretStr | None = Field(None, validation_alias="VISUAL_AI_JWT_SECRET")
    account_check_interval: float = Field(15.0, validation_alias="VISUAL_AI_ACCOUNT_CHECK_INTERVAL", gt=0, le=20)
    account_grace: float = Field(600.0, validation_alias="VISUAL_AI_ACCOUNT_GRACE", ge=60, le=3600)
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (ip_network("127.0.0.0/8"), ip_network("::1/128")), validation_alias="VISUAL_AI_TRUSTED_PROXIES"
    )
    metrics_token: SecretStr | None = Field(None, validation_alias="VISUAL_AI_METRICS_TOKEN", min_length=16)
    token_lifetime: int = Field(12 * 3600, validation_alias="VISUAL_AI_TOKEN_LIFETIME", ge=1, le=30 * 86400)
    local_networks: tuple[IPvAnyNetwork, ...] = Field((), validation_alias="VISUAL_AI_LOCAL_NETWORKS")
    cors_origins: tuple[str, ...] = Field((), validation_alias="VISUAL_AI_CORS_ORIGINS")
    max_body_bytes: int = Field(5 * 2**20, validation_alias="VISUAL_AI_MAX_BODY_BYTES", ge=1024)
    trigger_rate_per_minute: int = Field(6000, validation_alias="VISUAL_AI_TRIGGER_RATE_PER_MINUTE", ge=0)
    batch_trigger_limit: int = Field(1000, validation_alias="VISUAL_AI_BATCH_TRIGGER_LIMIT", ge=1)
    batch_trigger_concurrency: int = Field(8, validation_alias="VISUAL_AI_BATCH_TRIGGER_CONCURRENCY", ge=1, le=50)
    stream_heartbeat: float = Field(15.0, validation_alias="VISUAL_AI_STREAM_HEARTBEAT", gt=0)
    streams_per_user: int = Field(10_000, validation_alias="VISUAL_AI_STREAMS_PER_USER", ge=1)
    streams_per_process: int = Field(20_000, validation_alias="VISUAL_AI_STREAMS_PER_PROCESS", ge=1)
    listener: bool = Field(True, validation_alias="VISUAL_AI_LISTENER")
    reconcile_interval: float = Field(2.0, validation_alias="VISUAL_AI_RECONCILE_INTERVAL", gt=0)

    # Models
    default_model: str = Field("openai:gpt-4.1-mini", validation_alias="VISUAL_AI_DEFAULT_MODEL")
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    model_timeout: float = Field(120.0, validation_alias="VISUAL_AI_MODEL_TIMEOUT", gt=0)
    streaming: bool = Field(True, validation_alias="VISUAL_AI_STREAMING")
    stream_usage: bool = Field(True, validation_alias="VISUAL_AI_STREAM_USAGE")
    model_modes: Annotated[dict[str, ModelModes], NoDecode] = Field({}, validation_alias="VISUAL_AI_MODEL_MODES")

    # Model errors and rate limits
    error_rules: Annotated[dict[str, Any], NoDecode] = Field({}, validation_alias="VISUAL_AI_ERROR_POLICY")
    model_fallbacks: Annotated[dict[str, Any], NoDecode] = Field({}, validation_alias="VISUAL_AI_MODEL_FALLBACKS")
    retry_wait_limit: float = Field(60.0, validation_alias="VISUAL_AI_RETRY_WAIT_LIMIT", ge=0, le=MAX_SECONDS)
    reschedule_limit: float = Field(86_400.0, validation_alias="VISUAL_AI_RESCHEDULE_LIMIT", ge=0, le=MAX_SECONDS)
    sdk_retries: bool = Field(False, validation_alias="VISUAL_AI_SDK_RETRIES")
    rate_limiter: bool = Field(True, validation_alias="VISUAL_AI_RATE_LIMITER")
    model_limits: Annotated[dict[str, ModelLimit], NoDecode] = Field({}, validation_alias="VISUAL_AI_MODEL_LIMITS")

    # Agents in the triggerer
    triggerer_connections: int = Field(10, validation_alias="VISUAL_AI_TRIGGERER_CONNECTIONS", ge=1, le=200)
    triggerer_threads: int = Field(32, validation_alias="VISUAL_AI_TRIGGERER_THREADS", ge=1, le=1000)
    blocking_warning: float = Field(1.0, validation_alias="VISUAL_AI_BLOCKING_WARNING", gt=0)

    langgraph_json: str | None = Field(None, validation_alias="VISUAL_AI_LANGGRAPH_JSON")
    projects_dir: str | None = Field(None, validation_alias="VISUAL_AI_PROJECTS_DIR")
    project_idle_seconds: float = Field(600.0, validation_alias="VISUAL_AI_PROJECT_IDLE_SECONDS", ge=1)

    event_retention_days: float = Field(30.0, validation_alias="VISUAL_AI_EVENT_RETENTION_DAYS", gt=0)
    frame_retention_hours: float = Field(24.0, validation_alias="VISUAL_AI_FRAME_RETENTION_HOURS", gt=0)
    audit_retention_days: int = Field(400, validation_alias="VISUAL_AI_AUDIT_RETENTION_DAYS", ge=90, le=36_500)
    checkpoint_retention_days: float = Field(7.0, validation_alias="VISUAL_AI_CHECKPOINT_RETENTION_DAYS", ge=0)
    checkpoint_history_days: float = Field(1.0, validation_alias="VISUAL_AI_CHECKPOINT_HISTORY_DAYS", ge=0)

    # Images
    allow_private_images: bool = Field(False, validation_alias="VISUAL_AI_ALLOW_PRIVATE_IMAGES")
    max_image_bytes: int = Field(20 * 2**20, validation_alias="VISUAL_AI_MAX_IMAGE_BYTES", ge=1024)
    max_image_pixels: int = Field(50_000_000, validation_alias="VISUAL_AI_MAX_IMAGE_PIXELS", ge=1)
    inline_picture_bytes: int = Field(4096, validation_alias="VISUAL_AI_INLINE_PICTURE_BYTES", ge=0)
    model_image_side: int = Field(2048, validation_alias="VISUAL_AI_MODEL_IMAGE_SIDE", ge=64)
    remote_image_bytes_per_minute: int = Field(
        200 * 2**20, validation_alias="VISUAL_AI_REMOTE_IMAGE_BYTES_PER_MINUTE", ge=0
    )
    image_fetch_timeout: float = Field(20.0, validation_alias="VISUAL_AI_IMAGE_FETCH_TIMEOUT", gt=0)

    # Webhooks for notifications
    allow_private_webhooks: bool = Field(False, validation_alias="VISUAL_AI_ALLOW_PRIVATE_WEBHOOKS")
    allow_http_webhooks: bool = Field(False, validation_alias="VISUAL_AI_ALLOW_HTTP_WEBHOOKS")
    webhook_timeout: float = Field(10.0, validation_alias="VISUAL_AI_WEBHOOK_TIMEOUT", gt=0, le=60)
    webhook_attempts: int = Field(10, validation_alias="VISUAL_AI_WEBHOOK_ATTEMPTS", ge=1, le=20)
    webhook_first_wait: float = Field(10.0, validation_alias="VISUAL_AI_WEBHOOK_FIRST_WAIT", gt=0, le=3600)
    webhook_concurrency: int = Field(64, validation_alias="VISUAL_AI_WEBHOOK_CONCURRENCY", ge=2, le=1000)
    notification_retention_days: float = Field(30.0, validation_alias="VISUAL_AI_NOTIFICATION_RETENTION_DAYS", gt=0)

    # Sizes of values
    max_input_bytes: int = Field(120_000_000, validation_alias="VISUAL_AI_MAX_INPUT_BYTES", ge=1024, le=240_000_000)
    max_output_bytes: int = Field(120_000_000, validation_alias="VISUAL_AI_MAX_OUTPUT_BYTES", ge=1024, le=240_000_000)
    max_state_bytes: int = Field(250_000_000, validation_alias="VISUAL_AI_MAX_STATE_BYTES", ge=1024, le=1_000_000_000)
    max_steps: int = Field(10_000, validation_alias="VISUAL_AI_MAX_STEPS", ge=1)

    # Text
    max_text_chars: int = Field(1_000_000, validation_alias="VISUAL_AI_MAX_TEXT_CHARS", ge=1)

    # Tracing
    langfuse_host: str = Field("https://cloud.langfuse.com", validation_alias="LANGFUSE_HOST")
    langfuse_public_key: str | None = Field(None, validation_alias="LANGFUSE_PUBLIC_KEY")
    langfuse_secret_key: SecretStr | None = Field(None, validation_alias="LANGFUSE_SECRET_KEY")
    langfuse_base_url: str | None = Field(None, validation_alias="LANGFUSE_BASE_URL")
    langfuse_project_id: str | None = Field(None, validation_alias="LANGFUSE_PROJECT_ID")
    langfuse_tracing: bool = Field(True, validation_alias="LANGFUSE_TRACING_ENABLED")
    langfuse_sample_rate: float = Field(1.0, validation_alias="LANGFUSE_SAMPLE_RATE", ge=0, le=1)
    langfuse_environment: str | None = Field(None, validation_alias="LANGFUSE_TRACING_ENVIRONMENT")
    trace_content: bool = Field(True, validation_alias="VISUAL_AI_TRACE_CONTENT")

    @computed_field(repr=False)  # type: ignore[prop-decorator]  # pydantic's documented use
    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database that holds the `visual_ai` schema (psycopg 3)."""
        if self.database_url_override is not None:
            return self.database_url_override.get_secret_value()
        user, password = quote(self.postgres_user), quote(self.postgres_password.get_secret_value(), safe="")
        address = f"{self.postgres_host}:{self.postgres_port}/{quote(self.postgres_db)}"
        return f"postgresql+psycopg://{user}:{password}@{address}"

    @property
    def error_policy(self) -> ErrorPolicy:
        """The error policy for model calls, unless an operator's argument overrides it."""
        limits = ErrorPolicy(wait_limit=self.retry_wait_limit, reschedule_limit=self.reschedule_limit)
        policy = parse_error_policy(self.error_rules, base=limits, field_name="VISUAL_AI_ERROR_POLICY")
        chains = parse_fallbacks(self.model_fallbacks, "VISUAL_AI_MODEL_FALLBACKS")
        return replace(policy, fallbacks={**policy.fallbacks, **chains})

    @property
    def redis_address(self) -> str | None:
        """The URL of the shared Redis, including its password; None if processes share only PostgreSQL."""
        return self.redis_url.get_secret_value() if self.redis_url is not None else None

    @property
    def airflow_link_base(self) -> str:
        """The address of Airflow for browsers, without a trailing slash."""
        return (self.airflow_public_url or self.airflow_url).rstrip("/")

    @property
    def pages_link_base(self) -> str:
        """The address of the web page for browsers, without a trailing slash: that of the backend unless it is served
        elsewhere."""
        return (self.pages_url or self.public_url).rstrip("/")

    def question_link(self, question_id: str) -> str:
        """Where people read and answer a question."""
        return f"{self.pages_link_base}/inbox/{question_id}"

    @property
    def langfuse_url(self) -> str:
        """The address of Langfuse without a trailing slash. `LANGFUSE_BASE_URL` overrides the older `LANGFUSE_HOST`."""
        return (self.langfuse_base_url or self.langfuse_host).rstrip("/")

    @property
    def tracing(self) -> bool:
        """Whether traces are sent to Langfuse: both keys are set and tracing isn't disabled."""
        return bool(self.langfuse_tracing and self.langfuse_public_key and self.langfuse_secret_key)

    @property
    def tracing_environment(self) -> str:
        """The environment by which Langfuse tells apart several installations in one project."""
        return self.langfuse_environment or self.environment

    @property
    def development(self) -> bool:
        """Whether this is a developer's machine, where requests from the loopback may read without a token."""
        return self.environment == "development"

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("write redis://host:6379/0, with rediss:// for TLS or unix:// for a socket")
        return url

    @field_validator("openai_api_key", "langfuse_public_key", "langfuse_secret_key", mode="before")
    @classmethod
    def _leave_out_placeholders(cls, key: Any) -> Any:
        # Placeholders of an example file are no keys: every call and every trace would be rejected.
        return None if isinstance(key, str) and key.strip().startswith("your_") else key

    @field_validator("langfuse_host", "langfuse_base_url")
    @classmethod
    def _check_langfuse_url(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("https://", "http://")):
            raise ValueError("write an address such as https://cloud.langfuse.com")
        return url

    @field_validator("langfuse_environment")
    @classmethod
    def _check_langfuse_environment(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"(?!langfuse)[a-z0-9_-]{1,40}", name):
            raise ValueError("use up to 40 of a-z, 0-9, - and _; the name must not begin with “langfuse”")
        return name

    @field_validator("model_limits", "model_modes", "error_rules", "model_fallbacks", mode="before")
    @classmethod
    def _read_json(cls, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        try:
            return json.loads(given)
        except ValueError as error:
            raise ValueError(f"this is not valid JSON: {error}") from None

    @field_validator("model_limits", "model_modes")
    @classmethod
    def _check_model_names(cls, entries: dict[str, Any]) -> dict[str, Any]:
        check_names(entries)
        return entries

    @model_validator(mode="after")
    def _refuse_wrong_policies(self) -> Self:
        try:
            _ = self.error_policy
        except InputError as error:
            raise SettingsError(str(error)) from None
        return self

    @model_validator(mode="after")
    def _refuse_weak_secrets(self) -> Self:
        secret = self.jwt_secret.get_secret_value().encode() if self.jwt_secret else b""
        if self.environment == "production":
            if len(secret) < MIN_SECRET_BYTES:
                raise SettingsError(
                    f"VISUAL_AI_JWT_SECRET: set a random secret of at least {MIN_SECRET_BYTES} bytes "
                    "(for example `openssl rand -hex 32`) when VISUAL_AI_ENVIRONMENT=production"
                )
            if self.airflow_password.get_secret_value() == "airflow":  # the default
                raise SettingsError(
                    "VISUAL_AI_AIRFLOW_PASSWORD: the default password is not accepted when "
                    "VISUAL_AI_ENVIRONMENT=production"
                )
            if self.database_url_override is None and self.postgres_password.get_secret_value() == "airflow":
                raise SettingsError(
                    "POSTGRES_PASSWORD: the default password is not accepted when VISUAL_AI_ENVIRONMENT=production"
                )
        return self


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read at the first call. Raises `pydantic.ValidationError`, naming the variable."""
    return Settings()
