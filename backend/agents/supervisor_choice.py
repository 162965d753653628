"""What a supervisor may decide. Light enough to import when a DAG file is parsed."""

from typing import Any

FINISH = "FINISH"
"""Chosen instead of an agent when the work is done."""


def decision_schema(agents: list[str]) -> dict[str, Any]:
    """The form of a decision: nobody but these agents can be chosen."""
    return {
        "title": "Decision",
        "type": "object",
        "properties": {
            "next": {"type": "string", "enum": [*agents, FINISH]},
            "instruction": {"type": ["string", "null"], "description": "What the agent should do, if it isn't plain."},
            "reason": {"type": "string", "description": "Why, in a sentence."},
        },
        "required": ["next", "instruction", "reason"],
        "additionalProperties": False,
    }
