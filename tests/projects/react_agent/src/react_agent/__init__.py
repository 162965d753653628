"""A ReAct agent: it reasons, calls tools, and looks at what they answer until it is done."""

from react_agent.graph import graph

__all__ = ["graph"]
