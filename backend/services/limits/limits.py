"""The limits that an operator sets: listed, set and removed."""

import re
from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection

from backend.core.limits import KINDS, OF_RUNS, SPEND, Kind, Limit, LimitUse, Period, Subject
from backend.core.problems import Conflict, FieldError, Invalid, NotFound
from backend.core.roles import Principal
from backend.db import audit
from backend.db.engine import Database
from backend.db.limits import book, usage
from backend.services.limits.admission import Admission
from backend.services.limits.roles import AccountRoles

MAX_LIMITS = 1_000
"""Limits at most: each that applies is checked before each model call."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,99}")
_AMOUNT = Decimal(10**13)


class Limits:
    """Reads and changes limits. Endpoints check who may."""

    def __init__(self, database: Database, admission: Admission, roles: AccountRoles) -> None:
        self._database = database
        self._admission = admission
        self._roles = roles

    async def list_all(self) -> list[LimitUse]:
        """All limits, by their ids, with what is used of them. Of one for each user, nothing is counted."""

        def read(connection: Connection) -> list[LimitUse]:
            return usage.of_limits(connection, book.read_all(connection), "")

        await self._roles.write()
        return [_without_user(use) for use in await self._database.run(read)]

    async def mine(self, who: Principal) -> list[LimitUse]:
        """The limits that apply to a user, whatever DAG they run, with what is used of them."""

        def read(connection: Connection) -> list[LimitUse]:
            return usage.of_limits(connection, book.applying(connection, KINDS, who.username, None), who.username)

        await self._roles.write()
        return await self._database.run(read)

    async def put(
        self, who: Principal, limit_id: str, subject: str, kind: Kind, period: Period | None, amount: Decimal
    ) -> LimitUse:
        """Set a limit: a new one, or in place of the one with this id.

        Raises `Invalid`, and `Conflict` when another one is of the same kind for the same subject.
        """
        limit = _checked(limit_id, subject, kind, period, amount)

        def put(connection: Connection) -> LimitUse:
            book.lock_all(connection)
            known = book.read_all(connection)
            before = next((one for one in known if one.id == limit.id), None)
            if before is None and len(known) >= MAX_LIMITS:
                raise Conflict(f"There are {MAX_LIMITS} limits already; remove one first.")
            other = book.same(connection, limit)
            if other is not None:
                raise Conflict(
                    f"The limit {other.label} is of this kind and for this subject already; change that one."
                )
            book.put(connection, limit, by=who.username)
            _record(connection, who, before, limit)
            [use] = usage.of_limits(connection, [limit], "")
            return use

        use = await self._database.run(put)
        self._admission.forget()
        return _without_user(use)

    async def remove(self, who: Principal, limit_id: str) -> LimitUse:
        """Remove a limit, and return it. Raises `NotFound`."""

        def remove(connection: Connection) -> LimitUse | None:
            before = book.get(connection, limit_id)
            uses = usage.of_limits(connection, [before], "") if before is not None else []
            if not uses or not book.remove(connection, limit_id):
                return None
            _record(connection, who, before, None)
            return uses[0]

        removed = await self._database.run(remove) if _ID.fullmatch(limit_id) else None
        if removed is None:
            raise NotFound("There is no such limit.")
        self._admission.forget()
        return _without_user(removed)


def _record(connection: Connection, who: Principal, before: Limit | None, after: Limit | None) -> None:
    """`who` changes a limit, which is new without `before`, and gone without `after`."""
    [changed, *_] = [limit for limit in (after, before) if limit is not None]
    old, new = (limit.label if limit is not None else None for limit in (before, after))
    audit.record(connection, who, "limits.change", changed.id, before=old, after=new)


def _without_user(use: LimitUse) -> LimitUse:
    """A use that isn't about one user, without what is counted for each."""
    each = use.limit.subject.type == "each_user" or use.limit.kind == "streams"
    return LimitUse(use.limit, None if each else use.used, use.now)


def _checked(limit_id: str, subject: str, kind: Kind, period: Period | None, amount: Decimal) -> Limit:
    faults: list[FieldError] = []
    whom = Subject("everybody")
    if not _ID.fullmatch(limit_id):
        detail = "has to be up to 100 letters, digits and . _ : @ -, and begin with a letter or digit"
        raise Invalid(f"limit_id: {detail}", errors=[FieldError("?limit_id", detail)])
    try:
        whom = Subject.parse(subject)
    except ValueError as error:
        faults.append(FieldError("/subject", str(error)))
    if whom.type == "team" and kind not in OF_RUNS:
        faults.append(FieldError("/subject", f"a team has runs, and no {kind}; use a role, a user or each_user"))
    faults += _period_faults(kind, period)
    if not amount.is_finite() or amount < 0 or amount >= _AMOUNT:
        faults.append(FieldError("/limit", "has to be a number from 0 up, below 10,000,000,000,000"))
    elif kind != "cost_usd" and amount != amount.to_integral_value():
        faults.append(FieldError("/limit", f"has to be a whole number; {kind} are counted"))
    elif amount != round(amount, 6):
        faults.append(FieldError("/limit", "has more than 6 decimals; a limit has at most 6"))
    if faults:
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
    return Limit(limit_id, whom, kind, period, round(amount, 6))


def _period_faults(kind: Kind, period: Period | None) -> Sequence[FieldError]:
    if kind in SPEND and period is None:
        return [FieldError("/period", f"is required for {kind}: day or month")]
    if kind not in SPEND and period is not None:
        return [FieldError("/period", f"{kind} isn't counted by time; omit it")]
    return []
