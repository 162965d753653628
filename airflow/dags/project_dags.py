"""A DAG for each graph of the projects that were added with environments of their own (Airflow finds the DAGs here)."""

from __future__ import annotations

from visual_ai_graph_dags import project_dags

globals().update({f"dag_{number}": dag for number, dag in enumerate(project_dags().values())})
