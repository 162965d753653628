"""Requests to hosts that users named, without becoming a way into the private network (SSRF)."""
