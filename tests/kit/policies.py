"""Error policies for tests."""

from typing import Any

NO_RETRIES: dict[str, Any] = {
    "rate_limit": {"retries": 0},
    "timeout": {"retries": 0},
    "server": {"retries": 0, "fallback": False},
}
"""`Settings(error_rules=NO_RETRIES)` leaves each error to the task's own retries."""
