"""Turns what a task reports into rows and events, without blocking the task."""
