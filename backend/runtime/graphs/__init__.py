"""Loads, builds, caches and runs LangGraph graphs, built-in and user-defined."""
