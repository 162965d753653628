"""Repositories of what a run leaves behind: its execution, events, traces, errors, threads and batch items."""
