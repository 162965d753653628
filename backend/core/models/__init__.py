"""Names of models, and the ways in which they can be called."""
