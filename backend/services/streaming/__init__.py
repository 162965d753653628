"""Serves the event log of runs to any number of SSE clients."""
