"""Roles are Airflow's; the largest counts, and a name that Airflow does not ship with is none."""

import pytest

from backend.core.roles import STANDARD_RIGHTS, Principal, Role


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ([], Role.PUBLIC),
        (["Public"], Role.PUBLIC),
        (["Viewer"], Role.VIEWER),
        (["User", "Viewer"], Role.USER),
        (["Op"], Role.OP),
        (["viewer", "ADMIN"], Role.ADMIN),
        (["Data Scientist"], Role.PUBLIC),
        (["Data Scientist", "User"], Role.USER),
        ([""], Role.PUBLIC),
    ],
)
def test_highest(names: list[str], role: Role) -> None:
    assert Role.highest(names) is role
    assert Role.highest(iter(names)) is role


@pytest.mark.parametrize(
    ("role", "sees_all"),
    [(Role.PUBLIC, False), (Role.VIEWER, True), (Role.USER, False), (Role.OP, True), (Role.ADMIN, True)],
)
def test_who_sees_all(role: Role, sees_all: bool) -> None:
    assert Principal("somebody", STANDARD_RIGHTS[role]).sees_all is sees_all


@pytest.mark.parametrize("role", list(Role))
def test_a_label_is_read_back(role: Role) -> None:
    assert Role.highest([role.label]) is role
