"""LangGraph projects as Airflow sees them: what their graphs take, and how each of them is run."""
