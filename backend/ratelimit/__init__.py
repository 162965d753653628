"""Limits the rate of model calls across processes, backed by PostgreSQL or Redis."""
