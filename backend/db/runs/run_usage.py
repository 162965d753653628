"""The usage of runs: what their agents used, added up in their executions."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class UsageIncrement:
    """Tokens and, when known, cost in US dollars to add to an execution's totals."""

    execution_id: str
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal | None


_ADD = text(
    """
    UPDATE visual_ai.workflow_executions e
    SET input_tokens = e.input_tokens + used.input_tokens,
        output_tokens = e.output_tokens + used.output_tokens,
        cost_usd = CASE WHEN used.cost_usd IS NULL THEN e.cost_usd ELSE coalesce(e.cost_usd, 0) + used.cost_usd END
    FROM (
        SELECT id, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd
        FROM unnest(
            CAST(:ids AS uuid[]), CAST(:inputs AS bigint[]), CAST(:outputs AS bigint[]), CAST(:costs AS numeric[])
        ) AS given (id, input_tokens, output_tokens, cost_usd)
        GROUP BY id
    ) used
    WHERE e.id = used.id
    """
)


def add(connection: Connection, used: Sequence[UsageIncrement]) -> None:
    """Add usage to the totals of executions, each of which may occur several times."""
    if used:
        connection.execute(
            _ADD,
            {
                "ids": [one.execution_id for one in used],
                "inputs": [one.input_tokens for one in used],
                "outputs": [one.output_tokens for one in used],
                "costs": [one.cost_usd for one in used],
            },
        )
