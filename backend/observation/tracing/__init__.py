"""Sends traces of agents, nodes and model calls to Langfuse."""
