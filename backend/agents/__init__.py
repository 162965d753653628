"""The built-in agents: one LangGraph graph each, with typed state and the model passed in."""
