"""Which limits there are, and whom they apply to."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from backend.core.limits import Kind, Limit, Subject, fold
from backend.db.rows import Row, all_rows, first_row
from backend.db.tables import account_roles as roles
from backend.db.tables import dag_teams as teams
from backend.db.tables import limit_refusals as refusals
from backend.db.tables import operator_limits as limits


def read_all(connection: Connection) -> list[Limit]:
    """All limits, by their ids."""
    return [_limit(row) for row in all_rows(connection.execute(select(limits).order_by(limits.c.id)))]


def kinds(connection: Connection) -> list[Kind]:
    """The kinds of which there are limits."""
    return list(connection.execute(select(limits.c.kind).distinct()).scalars())


def lock_all(connection: Connection) -> None:
    """Let nobody else change limits until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("operator_limits", 0))))


def any_of(connection: Connection, kinds: Collection[Kind]) -> bool:
    """Whether there is a limit of these kinds."""
    return bool(connection.execute(select(exists().where(limits.c.kind.in_(kinds)))).scalar_one())


def get(connection: Connection, limit_id: str) -> Limit | None:
    """The limit with this id."""
    row = first_row(connection.execute(select(limits).where(limits.c.id == limit_id)))
    return _limit(row) if row is not None else None


def same(connection: Connection, limit: Limit) -> Limit | None:
    """The limit with another id that is of the same kind, for the same subject."""
    row = first_row(
        connection.execute(
            select(limits).where(
                limits.c.subject_type == limit.subject.type,
                limits.c.subject_name == limit.subject.name,
                limits.c.kind == limit.kind,
                limits.c.period == (limit.period or ""),
                limits.c.id != limit.id,
            )
        )
    )
    return _limit(row) if row is not None else None


def put(connection: Connection, limit: Limit, *, by: str) -> None:
    """Store a limit under its id, in place of the one that is there."""
    values: dict[str, Any] = {
        "subject_type": limit.subject.type,
        "subject_name": limit.subject.name,
        "kind": limit.kind,
        "period": limit.period or "",
        "amount": limit.amount,
        "updated_by": by,
        "updated_at": func.clock_timestamp(),
    }
    statement = insert(limits).values(id=limit.id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def remove(connection: Connection, limit_id: str) -> bool:
    """Delete a limit; returns whether there was one."""
    return connection.execute(delete(limits).where(limits.c.id == limit_id)).rowcount == 1


def applying(connection: Connection, kinds: Collection[Kind], user: str, dag_id: str | None) -> list[Limit]:
    """The limits of these kinds that apply to a user, in any spelling and empty for nobody, who runs this DAG."""
    return [_limit(row) for row in all_rows(connection.execute(_applying(kinds, fold(user), dag_id)))]


def _applying(kinds: Collection[Kind], user: str, dag_id: str | None) -> Select[Any]:
    named, subject = limits.c.subject_name, limits.c.subject_type
    cases: list[ColumnElement[bool]] = [subject == "everybody"]
    if user:
        has_role = exists().where(roles.c.user_id == user, roles.c.role == named)
        cases += [
            subject == "each_user",
            and_(subject == "user", named == user),
            and_(subject == "role", has_role),
        ]
    if dag_id is not None:
        cases.append(and_(subject == "team", exists().where(teams.c.dag_id == dag_id, teams.c.team == named)))
    return select(limits).where(limits.c.kind.in_(kinds), or_(*cases)).order_by(limits.c.id)


def set_roles(connection: Connection, user: str, names: Collection[str]) -> None:
    """Record which roles an account has."""
    account = fold(user)
    connection.execute(delete(roles).where(roles.c.user_id == account, roles.c.role.not_in(names)))
    if names:
        rows = [{"user_id": account, "role": name} for name in sorted(set(names))]
        connection.execute(insert(roles).values(rows).on_conflict_do_nothing())


def set_team(connection: Connection, dag_id: str, team: str) -> None:
    """Record which team a DAG belongs to."""
    statement = insert(teams).values(dag_id=dag_id, team=team)
    changed = statement.on_conflict_do_update(
        index_elements=["dag_id"], set_={"team": statement.excluded.team}, where=teams.c.team != team
    )
    connection.execute(changed)


def count_refusal(connection: Connection, kind: Kind) -> None:
    """Count that something was refused because of a limit of this kind."""
    statement = insert(refusals).values(kind=kind, refused=1)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["kind"], set_={"refused": refusals.c.refused + 1})
    )


def count_refusals(connection: Connection) -> dict[str, int]:
    """How often something was refused, by kind of limit."""
    return {row["kind"]: row["refused"] for row in all_rows(connection.execute(select(refusals)))}


def _limit(row: Row) -> Limit:
    subject = Subject(row["subject_type"], row["subject_name"])
    return Limit(row["id"], subject, row["kind"], row["period"] or None, row["amount"])
