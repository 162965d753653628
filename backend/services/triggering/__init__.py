"""Starts runs: single, in batches and from templates."""
