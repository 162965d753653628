"""`/users/me/preferences`: the signed-in user's preferences."""

from dataclasses import asdict

from fastapi import APIRouter

from backend.api.deps import Services, SignedIn
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.preferences import PreferencesBody, PreferencesOut, TargetOut, ThresholdsBody
from backend.api.schemas.workflows import BudgetBody
from backend.core.preferences import Preferences, Thresholds
from backend.services.application import Application
from backend.services.notifications.preferences import WantedPreferences, WantedTarget

router = APIRouter(prefix="/users/me/preferences", tags=["preferences"], route_class=JsonRoute)


@router.get("")
async def get_preferences(who: SignedIn, services: Services) -> PreferencesOut:
    """Your preferences. The secrets of notification targets are never returned."""
    return _out(await services.preferences.get(who), services)


@router.put("")
async def put_preferences(body: PreferencesBody, who: SignedIn, services: Services) -> PreferencesOut:
    """Replace all your preferences. A notification target keeps its secret if the request contains none.

    The model and the budget apply to runs that are triggered for you from now on.
    """
    requested = WantedPreferences(
        default_model=body.default_model,
        budget=(body.budget.model_dump(exclude_none=True) or None) if body.budget is not None else None,
        dashboard_range=body.dashboard_range,
        targets=[
            WantedTarget(
                name=target.name,
                url=target.url,
                secret=target.secret.get_secret_value() if target.secret is not None else None,
                enabled=target.enabled,
                events=tuple(target.events),
                thresholds=Thresholds(**target.thresholds.model_dump()),
            )
            for target in body.notification_targets
        ],
    )
    return _out(await services.preferences.put(who, requested), services)


def _out(kept: Preferences, services: Application) -> PreferencesOut:
    return PreferencesOut(
        default_model=kept.default_model,
        budget=BudgetBody(**kept.budget) if kept.budget is not None else None,
        dashboard_range=kept.dashboard_range,
        notification_targets=[
            TargetOut(
                name=target.name,
                url=target.url,
                enabled=target.enabled,
                events=list(target.events),
                thresholds=ThresholdsBody(**asdict(target.thresholds)),
                has_secret=services.preferences.has_secret(target),
            )
            for target in kept.targets
        ],
    )
