"""What an error means and what to do about it: recognition, categories, policy and decisions."""
