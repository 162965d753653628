"""LangGraph checkpoints in PostgreSQL: written in batches, and only by the try that holds the task's thread."""
