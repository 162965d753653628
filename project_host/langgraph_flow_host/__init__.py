"""Runs a project's graphs in the project's own environment, and speaks with the tasks that want them run.

The product loads this package into the interpreter of the project's environment, next to the project's own versions of
LangGraph and LangChain. So it imports nothing but these two, ormsgpack and Python 3.10.

A task connects to the host's socket and speaks the protocol of `channel`: frames of msgpack, in which both ends may ask
and tell. The task's end is `backend/runtime/remote`; this end is `session`.
"""

PROTOCOL = 1
"""The version of the protocol. Both ends come from one installation, so it is checked but never negotiated."""

REQUIREMENTS = ("langgraph>=1.0,<2", "langchain-core>=1.0", "ormsgpack>=1.10")
"""What a project's environment must have beside what the project itself needs."""
