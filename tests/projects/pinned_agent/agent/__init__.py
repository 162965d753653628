"""A package with the name that most projects choose for theirs."""
