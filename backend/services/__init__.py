"""What the API offers, without HTTP."""
