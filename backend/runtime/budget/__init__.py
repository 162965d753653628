"""Token, cost and step budgets."""
