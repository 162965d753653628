"""Limits without an API: set in the database, as the backend would."""

from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, create_engine, text

from backend.core.jsonable import dumps
from backend.core.limits import Kind, Limit, Period, Subject
from backend.db.limits import book


def set_limit(engine: Engine, subject: str, kind: Kind, amount: str | float, period: Period | None = None) -> None:
    """Set a limit, whose id is that of its subject and kind."""
    limit = Limit(f"{subject}.{kind}", Subject.parse(subject), kind, period, Decimal(str(amount)))
    with engine.begin() as connection:
        book.put(connection, limit, by="an operator")


def counters(engine: Engine, period: str = "day") -> dict[tuple[str, str], tuple[int, float]]:
    """Tokens and cost of each user and DAG."""
    query = text("SELECT user_id, dag_id, tokens, cost_usd FROM visual_ai.limit_usage WHERE period = :period")
    with engine.connect() as connection:
        return {(row[0], row[1]): (row[2], float(row[3])) for row in connection.execute(query, {"period": period})}


def reserved(engine: Engine) -> list[int]:
    """The tokens of each reservation."""
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT tokens FROM visual_ai.limit_reservations")).scalars())


def add_use(url: str, user: str, tokens: int = 0, cost: float = 0.0, *, dag_id: str = "dag") -> None:
    """Record that a user has used this much today and this month."""
    engine = create_engine(url, json_serializer=dumps)
    statement = text(
        "INSERT INTO visual_ai.limit_usage SELECT p, date_trunc(p, now() AT TIME ZONE 'UTC')::date, :user, :dag, :t, :c"
        " FROM unnest(ARRAY['day', 'month']) p ON CONFLICT (period, starts_on, user_id, dag_id) DO UPDATE"
        " SET tokens = limit_usage.tokens + excluded.tokens, cost_usd = limit_usage.cost_usd + excluded.cost_usd"
    )
    values: dict[str, Any] = {"user": user, "dag": dag_id, "t": tokens, "c": cost}
    try:
        with engine.begin() as connection:
            connection.execute(statement, values)
    finally:
        engine.dispose()
