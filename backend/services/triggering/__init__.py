"""Triggers runs: one at a time, in batches, and from templates."""
