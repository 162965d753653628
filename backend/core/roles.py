"""Roles and principals. Roles are Airflow's own (FAB); each includes the rights of the ones below."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, cast

RoleName = Literal["Public", "Viewer", "User", "Op", "Admin"]
"""The name of a role in Airflow."""

Dags = frozenset[str] | None
"""The ids of DAGs; None stands for all DAGs, including those that don't exist yet."""

NO_DAGS: frozenset[str] = frozenset()

Scope = Literal["read", "trigger", "stop"]
"""What a service token may be used for."""


class Role(IntEnum):
    """A `VIEWER` may read, a `USER` may trigger runs, and `OP` and `ADMIN` may see and stop the runs of everyone."""

    PUBLIC = 0
    VIEWER = 1
    USER = 2
    OP = 3
    ADMIN = 4

    @classmethod
    def highest(cls, names: Iterable[str]) -> "Role":
        """The highest of the named roles; roles that don't come with Airflow don't count."""
        return max((cls[name.upper()] for name in names if name.upper() in cls.__members__), default=cls.PUBLIC)

    @property
    def label(self) -> RoleName:
        """The name in Airflow."""
        return cast("RoleName", self.name.capitalize())


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do, DAG by DAG.

    `role` is the role of Airflow's that comes closest. It decides what has nothing to do with a DAG, such as operating
    the service.
    """

    role: Role
    reads: Dags
    """The DAGs that the user sees: the DAG itself, its templates, and their own runs of it."""
    starts: Dags
    """The DAGs of which they may start runs."""
    stops_own: Dags
    """The DAGs of which they may stop and retry their own runs."""
    sees: Dags
    """The DAGs of which they see the runs of everyone."""
    stops: Dags
    """The DAGs of which they may stop and retry the runs of everyone."""
    delegated: bool = False
    """Airflow itself doesn't show this user any runs: for their own, the backend asks with its service account."""

    def __or__(self, other: "Rights") -> "Rights":
        return Rights(
            max(self.role, other.role),
            either(self.reads, other.reads),
            either(self.starts, other.starts),
            either(self.stops_own, other.stops_own),
            either(self.sees, other.sees),
            either(self.stops, other.stops),
            self.delegated and other.delegated,
        )

    def limited(self, dags: Dags, scopes: Iterable[Scope]) -> "Rights":
        """The part of these rights that applies to `dags` and is within `scopes`."""
        allowed = set(scopes)
        reads = both(self.reads, dags) if "read" in allowed else NO_DAGS
        return Rights(
            self.role,
            reads,
            both(self.starts, dags) if "trigger" in allowed else NO_DAGS,
            both(self.stops_own, dags) if "stop" in allowed else NO_DAGS,
            both(self.sees, reads),
            both(self.stops, dags) if "stop" in allowed else NO_DAGS,
            self.delegated,
        )


def either(one: Dags, other: Dags) -> Dags:
    """The DAGs that are in at least one of the sets."""
    return None if one is None or other is None else one | other


def both(one: Dags, other: Dags) -> Dags:
    """The DAGs that are in both sets."""
    if one is None or other is None:
        return one if other is None else other
    return one & other


def covers(dags: Dags, dag_id: str) -> bool:
    """Whether the DAG is in the set."""
    return dags is None or dag_id in dags


NO_RIGHTS = Rights(
    Role.PUBLIC, reads=NO_DAGS, starts=NO_DAGS, stops_own=NO_DAGS, sees=NO_DAGS, stops=NO_DAGS, delegated=True
)

STANDARD_RIGHTS = {
    Role.PUBLIC: NO_RIGHTS,
    Role.VIEWER: Rights(Role.VIEWER, reads=None, starts=NO_DAGS, stops_own=NO_DAGS, sees=None, stops=NO_DAGS),
    Role.USER: Rights(Role.USER, reads=None, starts=None, stops_own=None, sees=NO_DAGS, stops=NO_DAGS),
    Role.OP: Rights(Role.OP, reads=None, starts=None, stops_own=None, sees=None, stops=None),
    Role.ADMIN: Rights(Role.ADMIN, reads=None, starts=None, stops_own=None, sees=None, stops=None),
}
"""The rights of the roles that come with Airflow."""


@dataclass(frozen=True, slots=True)
class Visible:
    """The runs that a user sees: of the DAGs `reads` their own, and everyone's of the DAGs `sees`."""

    username: str
    reads: Dags = None
    sees: Dags = None

    @property
    def all(self) -> bool:
        """Whether these are all runs."""
        return self.reads is None and self.sees is None


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """The service token that a request was made with."""

    id: str
    prefix: str
    name: str
    scopes: frozenset[Scope]
    dags: Dags


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from: the client's address, as trusted proxies report it, and the request's id."""

    address: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Principal:
    """The user who makes a request.

    Calls to Airflow are made with their `airflow_token`, so that its access rules apply; without one, after a check of
    `rights`, with the service account.
    """

    username: str
    rights: Rights
    airflow_token: str | None = None
    expires_at: float | None = None
    token_id: str | None = None
    """The `jti` of the session, or the id of the service token."""
    issued_at: float = 0.0
    account: str | None = None
    """What tells the account from a later one of the same name."""
    service_token: ServiceToken | None = None
    origin: Origin | None = None

    @property
    def credential(self) -> str | None:
        """How the session or service token can be recognised by who knows it, without being one."""
        if self.service_token is not None:
            return f"token:{self.service_token.prefix}"
        return f"session:{self.token_id[:8]}" if self.token_id is not None else None

    @property
    def role(self) -> Role:
        """The role of Airflow's that comes closest to the user's rights."""
        return self.rights.role

    @property
    def sees_all(self) -> bool:
        """Whether the user may see the runs of others, of all DAGs."""
        return self.visible.all

    @property
    def visible(self) -> Visible:
        """The runs that the user sees."""
        return Visible(self.username, self.rights.reads, self.rights.sees)

    def owns(self, user_id: str | None, triggered_by: str | None) -> bool:
        """Whether a run of `user_id` that `triggered_by` started is the user's own."""
        return self.username in (user_id, triggered_by)

    def may_see(self, dag_id: str, user_id: str | None, triggered_by: str | None) -> bool:
        """Whether the user may see a run."""
        rights = self.rights
        return covers(rights.reads, dag_id) and (covers(rights.sees, dag_id) or self.owns(user_id, triggered_by))

    def may_stop(self, dag_id: str, user_id: str | None, triggered_by: str | None) -> bool:
        """Whether the user may stop and retry a run."""
        rights = self.rights
        own = covers(rights.stops_own, dag_id) and self.owns(user_id, triggered_by)
        return own or covers(rights.stops, dag_id)

    def token_for(self, *, own: bool) -> str | None:
        """The Airflow token for a call about a run, the user's `own` or another's; None for the service account."""
        return None if own and self.rights.delegated else self.airflow_token
