"""Limits that an operator sets: for whom, of what, and how much."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, Self, get_args

from backend.core.budget import BudgetExceededError

SubjectType = Literal["everybody", "each_user", "user", "role", "team"]
Kind = Literal["cost_usd", "tokens", "runs_at_once", "upload_bytes", "batch_size", "streams"]
Period = Literal["day", "month"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SPEND: Final[tuple[Kind, ...]] = ("cost_usd", "tokens")
"""The kinds that are counted by day or month, and checked before each model call."""
OF_RUNS: Final[tuple[Kind, ...]] = ("cost_usd", "tokens", "runs_at_once")
"""The kinds that belong to runs, and so to a DAG, which may belong to a team."""

_UNITS: Final[dict[Kind, tuple[str, str]]] = {
    "cost_usd": ("US dollar", "US dollars"),
    "tokens": ("token", "tokens"),
    "runs_at_once": ("run at once", "runs at once"),
    "upload_bytes": ("byte of uploads", "bytes of uploads"),
    "batch_size": ("run in a batch", "runs in a batch"),
    "streams": ("open stream per user", "open streams per user"),
}


class LimitReachedError(BudgetExceededError):
    """The next model call would exceed an operator's limit and was not made.

    A retry helps only after the limit has reset or was raised.
    """


@dataclass(frozen=True, slots=True)
class Subject:
    """For whom a limit is: everybody together, each user, or a user, role or team of a name."""

    type: SubjectType
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `everybody`, `each_user`, `user:<name>`, `role:<name>` or `team:<name>`. Raises `ValueError`."""
        head, colon, name = text.strip().partition(":")
        name = name.strip()
        if head == "everybody" and not colon:
            return cls("everybody")
        if head == "each_user" and not colon:
            return cls("each_user")
        if name and "\x00" not in name:
            if head == "user":
                return cls("user", fold(name))
            if head == "role":
                return cls("role", name)
            if head == "team":
                return cls("team", name)
        raise ValueError("has to be everybody, each_user, user:<name>, role:<name> or team:<name>")

    def __str__(self) -> str:
        return f"{self.type}:{self.name}" if self.name else self.type

    @property
    def label(self) -> str:
        """The subject in a sentence."""
        if self.type == "everybody":
            return "everybody together"
        return "each user" if self.type == "each_user" else f"the {self.type} {self.name}"


def fold(username: str | None) -> str:
    """An account's name as limits count it: Airflow takes all spellings for one account. Empty for nobody."""
    return (username or "").lower()


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. `period` is None for kinds that aren't counted by time."""

    id: str
    subject: Subject
    kind: Kind
    period: Period | None
    amount: Decimal

    @property
    def label(self) -> str:
        """The limit in a sentence, with its figure."""
        one, many = _UNITS[self.kind]
        per = f" a {self.period}" if self.period else ""
        return f"{self.id!r} ({plain(self.amount)} {one if self.amount == 1 else many}{per} for {self.subject.label})"


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit and what is used of it at `now`: recorded, in progress or reserved. None where nothing is counted."""

    limit: Limit
    used: Decimal | None
    now: datetime

    @property
    def resets_at(self) -> datetime | None:
        """When counting starts from zero again."""
        return reset_after(self.now, self.limit.period) if self.limit.period else None

    @property
    def used_up(self) -> bool:
        """Whether nothing is left."""
        return self.used is not None and self.used >= self.limit.amount

    def refusal(self, asked: str = "") -> str:
        """Why something was refused; `asked` says what it would have taken."""
        resets = self.resets_at
        until = f" It resets at {resets:%Y-%m-%dT%H:%M:%SZ}." if resets else ""
        used = plain(self.used) if self.used is not None else "0"
        return f"The operator's limit {self.limit.label} is reached: {used} used or in progress{asked}.{until}"


def reset_after(now: datetime, period: Period) -> datetime:
    """The start of the next day or month, in UTC."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def plain(amount: Decimal) -> str:
    """A number without an exponent and trailing zeros."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text
