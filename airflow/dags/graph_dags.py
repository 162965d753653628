"""A DAG for each graph of the `langgraph.json` that `VISUAL_AI_LANGGRAPH_JSON` names (Airflow finds the DAGs here)."""

from __future__ import annotations

from visual_ai_graph_dags import graph_dags

globals().update({f"dag_{number}": dag for number, dag in enumerate(graph_dags().values())})
