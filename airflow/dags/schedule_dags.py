"""A DAG for each schedule that was set through the API (Airflow finds the DAGs here)."""

from __future__ import annotations

from visual_ai_schedules import schedule_dags

globals().update({f"dag_{number}": dag for number, dag in enumerate(schedule_dags())})
