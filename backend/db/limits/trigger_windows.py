"""The rate of triggers by user: a sliding window of a minute, as a row that all backends share."""

from sqlalchemy import Connection, text

_HIT = text(
    """
    INSERT INTO visual_ai.trigger_windows AS w (user_id, minute, triggers, previous)
    VALUES (:user, floor(extract(epoch FROM statement_timestamp()) / 60), 1, 0)
    ON CONFLICT (user_id) DO UPDATE SET
        minute = excluded.minute,
        triggers = CASE w.minute WHEN excluded.minute THEN w.triggers + 1 ELSE 1 END,
        previous = CASE w.minute
            WHEN excluded.minute THEN w.previous WHEN excluded.minute - 1 THEN w.triggers ELSE 0 END
    WHERE 1 + CASE w.minute
        WHEN excluded.minute THEN w.triggers + w.previous * (1 - extract(second FROM statement_timestamp()) / 60)
        WHEN excluded.minute - 1 THEN w.triggers * (1 - extract(second FROM statement_timestamp()) / 60)
        ELSE 0 END <= :per_minute
    RETURNING triggers
    """
)


def hit(connection: Connection, user: str, per_minute: int) -> bool:
    """Count a trigger of this user; returns False, and counts nothing, if that exceeds the limit (at least 1).

    What was triggered in the minute before counts by the part of it that is less than 60 seconds ago.
    """
    return connection.execute(_HIT, {"user": user, "per_minute": per_minute}).first() is not None


def forget(connection: Connection) -> None:
    """Delete the rows of users who have triggered nothing for an hour."""
    connection.execute(
        text(
            "DELETE FROM visual_ai.trigger_windows"
            " WHERE minute < floor(extract(epoch FROM statement_timestamp()) / 60) - 60"
        )
    )
