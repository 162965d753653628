"""LangGraph's own protocol: assistants, threads and runs, each run an Airflow run."""
