"""Who may do what. Roles are Airflow's own (FAB): a larger one includes the smaller."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, cast

RoleName = Literal["Public", "Viewer", "User", "Op", "Admin"]
"""A role as Airflow writes it."""


class Role(IntEnum):
    """What a user may do: `VIEWER` reads, `USER` triggers, `OP` and `ADMIN` see and stop all."""

    PUBLIC = 0
    VIEWER = 1
    USER = 2
    OP = 3
    ADMIN = 4

    @classmethod
    def highest(cls, names: Iterable[str]) -> "Role":
        """The largest of the named roles; names Airflow does not ship with count as no role."""
        return max((cls[name.upper()] for name in names if name.upper() in cls.__members__), default=cls.PUBLIC)

    @property
    def label(self) -> RoleName:
        """The name as Airflow writes it."""
        return cast("RoleName", self.name.capitalize())


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request. `airflow_token` is theirs, so that Airflow's own access rules apply to what they do."""

    username: str
    role: Role
    airflow_token: str | None = None
    expires_at: float | None = None

    @property
    def sees_all(self) -> bool:
        """Whether runs of others may be seen; a Viewer reads everything, a User only their own."""
        return self.role in (Role.VIEWER, Role.OP, Role.ADMIN)
