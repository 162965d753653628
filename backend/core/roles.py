"""Roles and principals. Roles are Airflow's own (FAB); each includes the rights of the ones below."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, cast

RoleName = Literal["Public", "Viewer", "User", "Op", "Admin"]
"""The name of a role in Airflow."""


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
class Principal:
    """The user who makes a request. Calls to Airflow are made with their `airflow_token`, so that its access rules
    apply."""

    username: str
    role: Role
    airflow_token: str | None = None
    expires_at: float | None = None

    @property
    def sees_all(self) -> bool:
        """Whether the user may see the runs of others. A Viewer may read everything, a User only their own runs."""
        return self.role in (Role.VIEWER, Role.OP, Role.ADMIN)
