"""Limits that an operator sets, and what is used of them."""
