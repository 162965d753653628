"""Bodies of preferences and notifications."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from backend.api.schemas.workflows import BudgetBody
from backend.core.preferences import DEFAULT_RANGE, NotificationEvent, Thresholds
from backend.core.problems import Invalid
from backend.core.time_range import parse_time_range

_NO_NUL = r"^[^\x00]*$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_DEFAULTS = Thresholds()


def _time_range(text: str) -> str:
    try:
        parse_time_range(text)
    except Invalid as problem:
        raise ValueError(problem.errors[0].detail) from None
    return text


def _unique(events: list[NotificationEvent]) -> list[NotificationEvent]:
    return list(dict.fromkeys(events))


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=_NAME)]
Events = Annotated[list[NotificationEvent], Field(min_length=1, max_length=20), AfterValidator(_unique)]
TimeRange = Annotated[str, Field(max_length=20), AfterValidator(_time_range)]


class ThresholdsBody(BaseModel):
    """When `budget_threshold` and `rate_limit_threshold` are sent."""

    model_config = ConfigDict(extra="forbid")

    budget_share: float = Field(
        _DEFAULTS.budget_share, gt=0, le=1, description="Used share of a run's or a task's budget"
    )
    rate_limit_errors: int = Field(
        _DEFAULTS.rate_limit_errors,
        ge=1,
        le=10_000,
        strict=True,
        description="This many rate-limit errors of all your runs …",
    )
    rate_limit_within: float = Field(
        _DEFAULTS.rate_limit_within,
        ge=1,
        le=86_400,
        description="… within this many seconds; sent at most once in that time",
    )


class _Target(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Name
    url: str = Field(
        min_length=1,
        max_length=2_000,
        pattern=_NO_NUL,
        description="The URL that notifications are posted to: https, on the public internet",
    )
    enabled: bool = True
    events: Events
    thresholds: ThresholdsBody = ThresholdsBody()


class TargetBody(_Target):
    """A webhook. Without a `secret` the target of this name keeps its current one."""

    secret: SecretStr | None = Field(
        None, min_length=16, max_length=256, description="Signs notifications. It is never returned."
    )
    has_secret: bool | None = Field(None, description="Ignored, so that a response can be sent back as a request")


class TargetOut(_Target):
    """A webhook. `has_secret` is false when its secret has to be set again."""

    has_secret: bool


class _Preferences(BaseModel):
    model_config = ConfigDict(extra="forbid")

    default_model: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        pattern=_NO_NUL,
        description="The model of runs that you trigger, unless the request or the task names one",
    )
    budget: BudgetBody | None = Field(None, description="The budget of runs whose request names none")
    dashboard_range: TimeRange = Field(DEFAULT_RANGE, examples=["15m", "24h", "7d"])


class PreferencesBody(_Preferences):
    """All preferences. Omitted fields are reset to their defaults."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "default_model": "openai:gpt-4.1-mini",
                "budget": {"max_cost_usd": 0.5},
                "dashboard_range": "7d",
                "notification_targets": [
                    {
                        "name": "on-call",
                        "url": "https://example.com/hooks/agents",
                        "secret": "at least sixteen characters",
                        "events": ["run_failed", "budget_threshold"],
                        "thresholds": {"budget_share": 0.8},
                    }
                ],
            }
        },
    )

    notification_targets: list[TargetBody] = Field([], max_length=20)


class PreferencesOut(_Preferences):
    """All preferences."""

    notification_targets: list[TargetOut]


class NotificationOut(BaseModel):
    """A notification and its delivery; `error` says why the last attempt failed."""

    id: str
    user_id: str
    target: str
    event: NotificationEvent
    state: Literal["pending", "sent", "dead"]
    attempts: int
    status: int | None = Field(description="HTTP status of the receiver's last response")
    error: str | None
    occurred_at: datetime
    queued_at: datetime
    next_attempt_at: datetime | None
    finished_at: datetime | None
    payload: dict[str, Any]


class NotificationList(BaseModel):
    """A page of notifications, newest first; `next_cursor` is null on the last page."""

    notifications: list[NotificationOut]
    next_cursor: str | None
