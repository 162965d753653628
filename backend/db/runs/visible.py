"""Which executions a user sees."""

from sqlalchemy import ColumnElement, or_

from backend.core.roles import Visible
from backend.db.tables import workflow_executions as executions


def visible_to(visible: Visible) -> list[ColumnElement[bool]]:
    """The conditions that an execution is one that the user sees; none if the user sees all."""
    conditions: list[ColumnElement[bool]] = []
    if visible.reads is not None:
        conditions.append(executions.c.dag_id.in_(sorted(visible.reads)))
    if visible.sees is not None:
        own = [executions.c.user_id == visible.username, executions.c.triggered_by == visible.username]
        others = [executions.c.dag_id.in_(sorted(visible.sees))] if visible.sees else []
        conditions.append(or_(*own, *others))
    return conditions
