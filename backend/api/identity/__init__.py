"""Signing in and out, service tokens, and the audit log."""
