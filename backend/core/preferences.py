"""A user's preferences: defaults for runs, notification targets, and the range of the dashboard."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

NotificationEvent = Literal["run_failed", "budget_threshold", "rate_limit_threshold", "alert", "question"]
"""A run failed; a share of a budget was used; many rate limits were met in a short time; a DAG's `VisualAINotifier` was
called; an agent asks the user something."""

EVENTS: tuple[NotificationEvent, ...] = get_args(NotificationEvent)

DEFAULT_RANGE = "24h"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a target is notified.

    `budget_share` is the used share of a budget, above 0 and at most 1. `rate_limit_errors` is how many rate limits the
    user's runs have met within `rate_limit_within` seconds.
    """

    budget_share: float = 0.8
    rate_limit_errors: int = 20
    rate_limit_within: float = 600.0


@dataclass(frozen=True, slots=True)
class NotificationTarget:
    """A webhook. `name` is unique for the user; `sealed_secret` is encrypted by `SecretBox`."""

    name: str
    url: str
    sealed_secret: str
    events: tuple[NotificationEvent, ...]
    enabled: bool = True
    thresholds: Thresholds = field(default_factory=Thresholds)

    def wants(self, event: str) -> bool:
        """Whether the target is enabled and subscribed to this event."""
        return self.enabled and event in self.events


@dataclass(frozen=True, slots=True)
class Preferences:
    """All preferences of one user. `budget` is in the form that `parse_budget` accepts, or None."""

    default_model: str | None = None
    budget: dict[str, Any] | None = None
    dashboard_range: str = DEFAULT_RANGE
    targets: tuple[NotificationTarget, ...] = ()

    def target(self, name: str) -> NotificationTarget | None:
        """The target of that name, if there is one."""
        return next((target for target in self.targets if target.name == name), None)

    @property
    def notified_events(self) -> list[str]:
        """The events that any enabled target is subscribed to."""
        return sorted({event for target in self.targets if target.enabled for event in target.events})

    @property
    def budget_shares(self) -> list[float]:
        """The shares of budgets at which any target wants to be notified."""
        return sorted({target.thresholds.budget_share for target in self.targets if target.wants("budget_threshold")})

    def settings_json(self) -> dict[str, Any]:
        """Everything but the model, in the form that is stored."""
        return {
            "budget": self.budget,
            "dashboard_range": self.dashboard_range,
            "notification_targets": [asdict(target) for target in self.targets],
        }

    @classmethod
    def of_row(cls, default_model: str | None, settings: Mapping[str, Any]) -> "Preferences":
        """The preferences that were stored, perhaps by a later version.

        Raises `KeyError`, `TypeError` or `ValueError` for anything else.
        """
        return cls(
            default_model=default_model,
            budget=settings.get("budget"),
            dashboard_range=settings.get("dashboard_range") or DEFAULT_RANGE,
            targets=tuple(_target(given) for given in settings.get("notification_targets") or ()),
        )


def _target(given: Mapping[str, Any]) -> NotificationTarget:
    known = {one.name: given[one.name] for one in fields(NotificationTarget) if one.name in given}
    limits = {one.name: value for one in fields(Thresholds) if (value := known["thresholds"].get(one.name)) is not None}
    return NotificationTarget(**{**known, "events": tuple(known["events"]), "thresholds": Thresholds(**limits)})
