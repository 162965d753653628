"""Reads, validates and stores users' preferences. Secrets of targets are stored encrypted and never returned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache
from sqlalchemy import Connection

from backend.clients.webhooks import WebhookClient
from backend.core.errors.input_error import InputError
from backend.core.preferences import NotificationEvent, NotificationTarget, Thresholds
from backend.core.preferences import Preferences as Kept
from backend.core.problems import FieldError, Invalid
from backend.core.roles import Principal
from backend.db import audit, preferences
from backend.db.engine import Database
from backend.models.resolve import check_name
from backend.services.notifications.secret_box import SecretBox, UnreadableError


@dataclass(frozen=True, slots=True)
class WantedTarget:
    """A notification target in a request; without a `secret` it keeps the one it has."""

    name: str
    url: str
    secret: str | None
    enabled: bool
    events: tuple[NotificationEvent, ...]
    thresholds: Thresholds


@dataclass(frozen=True, slots=True)
class WantedPreferences:
    """The preferences in a request, which replace the stored ones."""

    default_model: str | None
    budget: dict[str, Any] | None
    dashboard_range: str
    targets: Sequence[WantedTarget]


RECENT_SECONDS = 1.0
"""How long runs may still use preferences that were replaced through another replica."""


class Preferences:
    """Reads and replaces the preferences of the user who makes the request."""

    def __init__(self, database: Database, box: SecretBox, client: WebhookClient) -> None:
        self._database = database
        self._box = box
        self._client = client
        self._recent: TTLCache[str, Kept] = TTLCache(10_000, RECENT_SECONDS)

    async def for_runs(self, user_id: str) -> Kept:
        """The preferences that apply to new runs of the user, at most `RECENT_SECONDS` old.

        Raises `sqlalchemy.exc.OperationalError` if the database is unavailable.
        """
        known: Kept | None = self._recent.get(user_id)
        if known is None:
            known = self._recent[user_id] = await self._database.run_autocommit(preferences.read, user_id)
        return known

    async def get(self, who: Principal) -> Kept:
        """The user's preferences."""
        return await self._database.run(preferences.read, who.username)

    async def put(self, who: Principal, wanted: WantedPreferences) -> Kept:
        """Replace the user's preferences. Raises `Invalid`, naming the field, and then changes nothing."""
        known = await self.get(who)
        faults = _model_faults(wanted.default_model) + await self._address_faults(known, wanted.targets)
        if faults:
            raise _invalid(faults)
        made = await self._database.run(self._replace, who, wanted)
        self._recent[who.username] = made
        return made

    def has_secret(self, target: NotificationTarget) -> bool:
        """Whether notifications can be signed: the target's secret is lost if the backend's own one has changed."""
        try:
            self._box.open(target.sealed_secret)
        except UnreadableError:
            return False
        return True

    def _replace(self, connection: Connection, who: Principal, wanted: WantedPreferences) -> Kept:
        known = preferences.read_for_change(connection, who.username)
        made = Kept(wanted.default_model, wanted.budget, wanted.dashboard_range, tuple(self._targets(known, wanted)))
        preferences.write(connection, who.username, made)
        if changed := _changes(known, made):
            audit.record(connection, who, "preferences.change", who.username, changed=changed)
        return made

    def _targets(self, known: Kept, wanted: WantedPreferences) -> list[NotificationTarget]:
        targets: list[NotificationTarget] = []
        faults: list[FieldError] = []
        for index, target in enumerate(wanted.targets):
            before = known.target(target.name)
            if any(other.name == target.name for other in targets):
                faults.append(FieldError(_pointer(index, "name"), "is the name of another target; names are unique"))
            elif target.secret is None and (before is None or not self.has_secret(before)):
                faults.append(FieldError(_pointer(index, "secret"), "is missing; notifications are signed with it"))
            else:
                targets.append(self._target(target, before))
        if faults:
            raise _invalid(faults)
        return targets

    def _target(self, wanted: WantedTarget, before: NotificationTarget | None) -> NotificationTarget:
        sealed = self._box.seal(wanted.secret) if wanted.secret is not None else before.sealed_secret if before else ""
        return NotificationTarget(
            name=wanted.name,
            url=wanted.url,
            sealed_secret=sealed,
            events=wanted.events,
            enabled=wanted.enabled,
            thresholds=wanted.thresholds,
        )

    async def _address_faults(self, known: Kept, targets: Sequence[WantedTarget]) -> list[FieldError]:
        """What is wrong with new addresses. One that was accepted before is only checked again when it is used."""
        found = []
        for index, target in enumerate(targets):
            before = known.target(target.name)
            if before is not None and before.url == target.url:
                continue
            if (fault := await self._client.check(target.url)) is not None:
                found.append(FieldError(_pointer(index, "url"), fault))
        return found


def _changes(before: Kept, after: Kept) -> list[str]:
    """What differs, by name: the addresses and secrets of webhooks are their user's own business."""
    fields = ("default_model", "budget", "dashboard_range")
    changed = [name for name in fields if getattr(before, name) != getattr(after, name)]
    names = dict.fromkeys(target.name for target in (*before.targets, *after.targets))
    return changed + [f"notification target {name}" for name in names if before.target(name) != after.target(name)]


def _model_faults(name: str | None) -> list[FieldError]:
    try:
        if name is not None:
            check_name(name)
    except InputError as error:
        return [FieldError("/default_model", error.message)]
    return []


def _pointer(index: int, field: str) -> str:
    return f"/notification_targets/{index}/{field}"


def _invalid(faults: list[FieldError]) -> Invalid:
    return Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
