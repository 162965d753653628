"""LangGraph agents as first-class Apache Airflow tasks: the agents' runtime, the API service and the local stack."""

__version__ = "0.1.0"
