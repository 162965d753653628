"""The built-in agents. Each is a LangGraph graph with a typed state, and gets its model passed in."""
