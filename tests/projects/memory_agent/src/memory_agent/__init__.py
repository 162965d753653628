"""An agent that remembers what its user tells it."""
