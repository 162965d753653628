"""`/langgraph`: LangGraph's own protocol, for its clients."""
