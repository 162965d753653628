"""The `local:` models, which work without a key or a network."""
