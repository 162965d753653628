"""Loads, checks and caches pictures."""
