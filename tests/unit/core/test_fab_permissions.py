"""What roles in Airflow mean: the five standard ones have a fixed meaning, others what their permissions say."""

import pytest

from backend.core.fab_permissions import Permission, rights_of
from backend.core.roles import NO_DAGS, STANDARD_RIGHTS, Dags, Role

READS_ALL = [("can_read", "DAGs")]
STARTS_ALL = [*READS_ALL, ("can_edit", "DAGs"), ("can_create", "DAG Runs")]
SEES = ("can_read", "DAG Runs")
STOPS = ("can_edit", "DAG Runs")
OPERATES = [("can_edit", "Pools"), ("can_edit", "Connections"), ("can_edit", "Variables")]
A = frozenset({"a"})


@pytest.mark.parametrize("name", ["Public", "Viewer", "User", "Op", "Admin"])
def test_standard_roles_keep_their_meaning(name: str) -> None:
    assert rights_of([name], {}) == STANDARD_RIGHTS[Role.highest([name])]
    assert rights_of(["Viewer", name], {}) == STANDARD_RIGHTS[max(Role.VIEWER, Role.highest([name]))]


@pytest.mark.parametrize(
    ("permissions", "role", "reads", "starts", "sees", "stops"),
    [
        ([], Role.PUBLIC, NO_DAGS, NO_DAGS, NO_DAGS, NO_DAGS),
        ([SEES], Role.PUBLIC, NO_DAGS, NO_DAGS, NO_DAGS, NO_DAGS),
        (READS_ALL, Role.VIEWER, None, NO_DAGS, NO_DAGS, NO_DAGS),
        ([*READS_ALL, SEES], Role.VIEWER, None, NO_DAGS, None, NO_DAGS),
        (STARTS_ALL, Role.USER, None, None, NO_DAGS, NO_DAGS),
        ([*STARTS_ALL, SEES, STOPS], Role.USER, None, None, None, None),
        ([*STARTS_ALL, SEES, STOPS, *OPERATES], Role.OP, None, None, None, None),
        (
            [*STARTS_ALL, SEES, STOPS, *OPERATES, ("can_edit", "Users"), ("can_edit", "Roles")],
            Role.ADMIN, None, None, None, None,
        ),
        ([("can_read", "DAG:a")], Role.VIEWER, A, NO_DAGS, NO_DAGS, NO_DAGS),
        ([("can_read", "DAG:a"), SEES], Role.VIEWER, A, NO_DAGS, A, NO_DAGS),
        ([("can_read", "DAG:a"), ("can_edit", "DAG:a")], Role.VIEWER, A, NO_DAGS, NO_DAGS, NO_DAGS),
        ([("can_read", "DAG:a"), ("can_edit", "DAG:a"), ("can_create", "DAG Runs")], Role.USER, A, A, NO_DAGS, NO_DAGS),
        (
            [("can_read", "DAG:a"), ("can_edit", "DAG:a"), ("can_create", "DAG Run:a"), ("can_read", "DAG Run:a")],
            Role.USER, A, A, A, NO_DAGS,
        ),
        ([("can_read", "DAG:a"), ("can_read", "DAG Run:b")], Role.VIEWER, A, NO_DAGS, NO_DAGS, NO_DAGS),
        ([("can_edit", "DAGs"), ("can_create", "DAG Runs")], Role.PUBLIC, NO_DAGS, NO_DAGS, NO_DAGS, NO_DAGS),
        ([*READS_ALL, ("can_edit", "DAG:a"), ("can_create", "DAG Runs")], Role.USER, None, A, NO_DAGS, NO_DAGS),
        ([*READS_ALL, STOPS], Role.VIEWER, None, NO_DAGS, NO_DAGS, NO_DAGS),
    ],
)  # fmt: skip
def test_other_roles_mean_what_their_permissions_say(
    permissions: list[Permission], role: Role, reads: Dags, starts: Dags, sees: Dags, stops: Dags
) -> None:
    rights = rights_of(["Public", "Own"], {"Own": permissions})
    assert (rights.role, rights.reads, rights.starts, rights.sees, rights.stops) == (role, reads, starts, sees, stops)
    assert rights.stops_own == rights.starts
    assert rights.delegated


def test_another_role_adds_to_a_standard_one() -> None:
    rights = rights_of(["User", "Own"], {"Own": [("can_read", "DAG:a"), SEES]})
    assert (rights.role, rights.reads, rights.starts, rights.sees) == (Role.USER, None, None, A)
    assert not rights.delegated


def test_rights_can_be_limited() -> None:
    rights = STANDARD_RIGHTS[Role.OP].limited(A, ["read"])
    assert (rights.reads, rights.sees, rights.starts, rights.stops, rights.stops_own) == (A, A, *[NO_DAGS] * 3)
    rights = STANDARD_RIGHTS[Role.USER].limited(None, ["trigger", "stop"])
    assert (rights.reads, rights.sees, rights.starts, rights.stops, rights.stops_own) == (
        NO_DAGS, NO_DAGS, None, NO_DAGS, None,
    )  # fmt: skip
