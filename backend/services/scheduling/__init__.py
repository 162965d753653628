"""Schedules: when runs of workflows and templates are due, whose they are, and starting them."""
