"""Runs one agent over many inputs within a single task."""
