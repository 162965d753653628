"""What the API offers, independent of HTTP."""
