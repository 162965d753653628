"""Reads what two runs' agents and nodes did, to be compared."""

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows

MOST = 1_000
"""Agents and nodes of a run that are compared."""

EXCERPT = 2_000
"""Characters of the JSON text of an output that are shown."""

_ROWS = text(
    """
    SELECT id, task_id, map_index, try_number, agent_name, agent_type, item_index, node, state, model, started_at,
        latency_ms, input_tokens, output_tokens, cost_usd, octet_length(output::text) AS bytes,
        left(output::text, :excerpt) AS excerpt, md5(output::text) AS hash,
        output_parts IS NOT NULL AS cut
    FROM visual_ai.agent_traces
    WHERE execution_id = CAST(:execution_id AS uuid)
    ORDER BY node IS NOT NULL, started_at, id LIMIT :limit
    """
)


def read(connection: Connection, execution_id: str) -> list[Row]:
    """Agents, then nodes, each in the order in which they started; one more than `MOST` if there are more."""
    values = {"execution_id": execution_id, "limit": MOST + 1, "excerpt": EXCERPT}
    return all_rows(connection.execute(_ROWS, values))
