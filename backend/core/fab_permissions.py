"""What a user's roles in Airflow (FAB) mean here."""

from collections.abc import Iterable, Mapping

from backend.core.roles import NO_DAGS, NO_RIGHTS, STANDARD_RIGHTS, Dags, Rights, Role, both

Permission = tuple[str, str]
"""An action and a resource, as Airflow names them: `("can_read", "DAG:sales")`."""

_DAG, _DAG_RUN = "DAG:", "DAG Run:"
"""Prefixes of the resources that stand for one DAG, and for the runs of one DAG."""

_OPERATES = {("can_edit", "Pools"), ("can_edit", "Connections"), ("can_edit", "Variables")}
_ADMINISTERS = {("can_edit", "Users"), ("can_edit", "Roles")}


def is_standard(role: str) -> bool:
    """Whether a role is one of the five that come with Airflow."""
    return role.upper() in Role.__members__


def rights_of(roles: Iterable[str], permissions: Mapping[str, Iterable[Permission]]) -> Rights:
    """The rights of a user with these `roles`; `permissions` are those of each role that doesn't come with Airflow.

    The five standard roles have a fixed meaning, and the highest of them counts. Other roles add what they permit.
    """
    names = list(roles)
    standard = STANDARD_RIGHTS[Role.highest(names)]
    granted = {one for name in names if not is_standard(name) for one in permissions.get(name, ())}
    return standard | rights_of_permissions(granted)


def rights_of_permissions(granted: set[Permission]) -> Rights:
    """The rights that permissions grant, each as Airflow itself would decide.

    Airflow asks for `can_edit` on the DAG wherever a run is created or changed. Whoever may read a DAG's runs sees them
    here with their tasks and results.
    """
    reads = _dags(granted, "can_read", "DAGs", _DAG)
    edits = both(reads, _dags(granted, "can_edit", "DAGs", _DAG))
    starts = both(edits, _dags(granted, "can_create", "DAG Runs", _DAG_RUN))
    sees = both(reads, _dags(granted, "can_read", "DAG Runs", _DAG_RUN))
    stops = both(both(edits, sees), _dags(granted, "can_edit", "DAG Runs", _DAG_RUN))
    if reads == NO_DAGS:
        return NO_RIGHTS
    role = Role.VIEWER if starts == NO_DAGS else Role.USER
    if starts is None and sees is None and stops is None and granted >= _OPERATES:
        role = Role.ADMIN if granted >= _ADMINISTERS else Role.OP
    return Rights(role, reads, starts, stops_own=starts, sees=sees, stops=stops, delegated=True)


def _dags(granted: set[Permission], action: str, all_of: str, prefix: str) -> Dags:
    """The DAGs for which an action is granted: all with `all_of`, or each by a resource of its own."""
    if (action, all_of) in granted:
        return None
    return frozenset(name[len(prefix) :] for done, name in granted if done == action and name.startswith(prefix))
