"""Runs the whole product on one machine: embedded PostgreSQL, Airflow and the backend."""
