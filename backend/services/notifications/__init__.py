"""Decides who is notified, and delivers signed webhooks."""
