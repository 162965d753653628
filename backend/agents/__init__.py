"""LangGraph agents, the models they call and the runner that carries them out."""
