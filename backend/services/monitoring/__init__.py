"""Metrics, health and the state of model rate limits."""
