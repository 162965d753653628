"""Keeps the schema `visual_ai` in step with Airflow: listener, reconciler and retention."""
