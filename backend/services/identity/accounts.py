"""The accounts that sessions belong to, as Airflow has them now.

A session's rights are those that its user has in Airflow at the moment, not those at sign-in. They are kept for each
user, so that a request costs no call to Airflow:

* up to `interval` seconds old (`VISUAL_AI_ACCOUNT_CHECK_INTERVAL`), they are used as they are;
* older, they are used and looked up again in the background, together with those of others;
* from five thirds of that on, a request waits for the look-up.

When Airflow doesn't answer, what is known stays valid for `grace` seconds (`VISUAL_AI_ACCOUNT_GRACE`). Requests of
users about whom nothing is known, or not any more, fail until it does. Rights never grow without an answer of
Airflow's.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from backend.clients.airflow import PAGE, AirflowClient, AirflowError, AirflowRefused
from backend.core.audit import Entry
from backend.core.fab_permissions import Permission, is_standard, rights_of
from backend.core.problems import Unavailable
from backend.core.roles import STANDARD_RIGHTS, Dags, Rights
from backend.services.background import retrieve
from backend.services.identity.audit_log import AuditLog
from backend.services.limits.roles import AccountRoles

log = logging.getLogger(__name__)

MAX_KNOWN = 20_000
"""Accounts that one process remembers; the one that was used longest ago makes room for another."""

PATIENCE = 2.0
"""Seconds to wait for Airflow before an answer is used that is still within `grace`."""

PAUSE = 2.0
"""Seconds for which what is known is used after Airflow failed, so that not every request waits for its timeout."""

GATHERING = 1 / 15
"""The part of the interval for which look-ups in the background are collected, to be made together."""

MANY = 20
"""Look-ups above which listing all users may be cheaper."""


@dataclass(frozen=True, slots=True)
class Account:
    """An active account. `mark` tells it from a later one of the same name."""

    username: str
    rights: Rights
    mark: str | None


@dataclass(slots=True)
class _Known:
    account: Account | None
    read_at: float


class Accounts:
    """Looks up accounts and remembers them. What has changed about one is recorded in the audit log."""

    def __init__(
        self, airflow: AirflowClient, account_roles: AccountRoles, audit: AuditLog, *, interval: float, grace: float
    ) -> None:
        self.interval = interval
        self._audit = audit
        self._airflow = airflow
        self._account_roles = account_roles
        self._stale = interval * 5 / 3
        self._grace = grace
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._looking_up: dict[str, asyncio.Task[Account | None]] = {}
        self._due: set[str] = set()
        self._refreshing: asyncio.Task[None] | None = None
        self._permissions: dict[str, tuple[float, list[Permission]]] = {}
        self._paused_until = 0.0
        self._pages = 1

    async def get(self, username: str) -> Account | None:
        """The account with exactly this name; None if Airflow has no such active user. Raises `Unavailable`."""
        known = self._known.get(username)
        age = time.monotonic() - known.read_at if known is not None else self._grace
        if known is not None:
            self._known.move_to_end(username)
            if age < self._stale:
                if age >= self.interval:
                    self._refresh_soon(username)
                return known.account
        within_grace = known is not None and age < self._grace
        if known is not None and within_grace and time.monotonic() < self._paused_until:
            return known.account
        task = self._look_up(username)
        try:
            async with asyncio.timeout(PATIENCE if within_grace else None):
                return await asyncio.shield(task)
        except (AirflowError, TimeoutError) as error:
            log.warning("an account could not be looked up in Airflow: %s", error or "no answer yet")
            self._paused_until = time.monotonic() + PAUSE
            if known is not None and within_grace:
                return known.account
            raise _unavailable() from error

    async def fetch(self, username: str) -> Account | None:
        """Look an account up now, by any spelling of its name. Raises `AirflowError`."""
        try:
            user = await self._airflow.user(username)
        except AirflowRefused as refused:
            if refused.status != 404:
                raise
            self._keep(username, None)
            return None
        found = str(user.get("username") or username)
        account = await self._account(found, user)
        self._keep(found, account)
        if found != username:
            self._keep(username, None)
        return account

    async def close(self) -> None:
        """Cancel look-ups."""
        tasks = [*self._looking_up.values(), *([self._refreshing] if self._refreshing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, username: str) -> asyncio.Task[Account | None]:
        """The look-up of this account that is in progress, or a new one."""
        task = self._looking_up.get(username)
        if task is None:
            task = self._looking_up[username] = asyncio.create_task(self._look_up_exactly(username))
            task.add_done_callback(retrieve)
        return task

    async def _look_up_exactly(self, username: str) -> Account | None:
        try:
            account = await self.fetch(username)
        finally:
            del self._looking_up[username]
        return account if account is not None and account.username == username else None

    def _refresh_soon(self, username: str) -> None:
        self._due.add(username)
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Look up again what is due, until nothing is. What fails is tried again when it is next used."""
        try:
            while self._due:
                await asyncio.sleep(self.interval * GATHERING)
                due, self._due = self._due, set()
                if time.monotonic() < self._paused_until:
                    return
                try:
                    if len(due) > max(MANY, self._pages):
                        due -= await self._read_all(due)
                    await asyncio.gather(*(self._look_up(name) for name in due))
                except AirflowError as error:
                    log.warning("accounts could not be looked up in Airflow: %s", error)
                    self._paused_until = time.monotonic() + PAUSE
        finally:
            self._refreshing = None

    async def _read_all(self, due: set[str]) -> set[str]:
        """Read all users, a page at a time; returns those of `due` that were found."""
        users = await self._airflow.list_users()
        self._pages = len(users) // PAGE + 1
        found = set()
        for user in users:
            if (name := str(user["username"])) in due:
                self._keep(name, await self._account(name, user))
                found.add(name)
        return found

    def _keep(self, username: str, account: Account | None) -> None:
        before = self._known.get(username)
        if before is not None and _standing(before.account) != _standing(account):
            details = {"from": _standing(before.account), "to": _standing(account)}
            role = account.rights.role.label if account is not None else None
            self._audit.note(Entry("role.change", user_id=username, role=role, object=username, details=details))
        self._known[username] = _Known(account, time.monotonic())
        self._known.move_to_end(username)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def _account(self, username: str, user: dict[str, Any]) -> Account | None:
        if not user.get("active", True):
            return None
        roles = [str(role["name"]) for role in user.get("roles") or []]
        permissions = {name: await self._permissions_of(name) for name in roles if not is_standard(name)}
        self._account_roles.note(username, roles)
        created = user.get("created_on")
        return Account(username, rights_of(roles, permissions), str(created) if created is not None else None)

    async def _permissions_of(self, role: str) -> list[Permission]:
        known = self._permissions.get(role)
        now = time.monotonic()
        if known is not None and now - known[0] < self.interval:
            return known[1]
        found = await self._airflow.role_permissions(role)
        if len(self._permissions) >= MAX_KNOWN:
            self._permissions.clear()
        self._permissions[role] = (now, found)
        return found


def _standing(account: Account | None) -> str:
    """What an account may do, in words: a role of Airflow's, or the rights of other roles."""
    if account is None:
        return "no active account"
    rights = account.rights
    if rights == STANDARD_RIGHTS.get(rights.role):
        return rights.role.label
    names = ("reads", "starts", "stops_own", "sees", "stops")
    parts = [f"{name} {_dags(getattr(rights, name))}" for name in names if getattr(rights, name) != frozenset()]
    return f"{rights.role.label} ({', '.join(parts) or 'nothing'})"[:300]


def _dags(dags: Dags) -> str:
    return "all" if dags is None else " ".join(sorted(dags))


def _unavailable() -> Unavailable:
    return Unavailable("Airflow is out of reach, so your account can't be checked; try again shortly.", retry_after=5)
