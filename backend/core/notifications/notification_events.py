"""What users can be told of."""

from typing import Literal, get_args

NotificationEvent = Literal["run_failed", "budget_threshold", "rate_limit_threshold", "alert"]
"""A run failed; its own or a task's budget is used up to the user's share; so many rate limits were met within a
time; a DAG's `VisualAINotifier` was called."""

EVENTS: tuple[NotificationEvent, ...] = get_args(NotificationEvent)

CHANNEL = "visual_ai_notifications"
"""The Postgres notification channel that wakes those who deliver; its payload means nothing."""
