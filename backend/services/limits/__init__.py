"""Limits that an operator sets: who changes them, and where they are checked."""
