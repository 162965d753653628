"""Requests and responses as the API shows them."""
