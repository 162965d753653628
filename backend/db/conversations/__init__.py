"""Conversations: LangGraph threads that outlive a run, their turns and what these stream."""
