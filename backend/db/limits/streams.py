"""The streams that backends serve to users who have a limit of them."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from backend.core.limits import Limit, LimitUse, fold
from backend.db.limits import usage
from backend.db.tables import open_streams


def open_one(connection: Connection, limits: Sequence[Limit], process_id: str, user: str) -> LimitUse | None:
    """Count one more stream of a user that this process serves, unless a limit is reached, which is returned."""
    account = fold(user)
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"streams {account}", 0))))
    for use in usage.of_limits(connection, limits, account):
        if use.used_up:
            return use
    statement = insert(open_streams).values(process_id=process_id, user_id=account, streams=1)
    more = {"streams": open_streams.c.streams + 1, "seen_at": func.clock_timestamp()}
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id", "process_id"], set_=more))
    return None


def confirm(connection: Connection, process_id: str, streams: Mapping[str, int]) -> None:
    """Say how many streams this process serves to users, for all whose streams it counts."""
    connection.execute(delete(open_streams).where(open_streams.c.process_id == process_id))
    rows = [{"process_id": process_id, "user_id": user, "streams": count} for user, count in streams.items() if count]
    if rows:
        connection.execute(insert(open_streams).values(rows))


def forget(connection: Connection) -> None:
    """Delete what processes left behind that have died."""
    connection.execute(delete(open_streams).where(open_streams.c.seen_at < func.now() - func.make_interval(0, 0, 0, 1)))
