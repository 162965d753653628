"""Builds and trims the messages that models receive."""
