"""Runs graphs of projects that have environments of their own, in processes of these environments."""
