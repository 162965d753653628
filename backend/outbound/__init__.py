"""Requests to hosts that somebody else named, without becoming a way into the private network (SSRF)."""
