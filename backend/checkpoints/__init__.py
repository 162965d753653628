"""LangGraph checkpoints in PostgreSQL: fenced against superseded tries, and written in batches."""
