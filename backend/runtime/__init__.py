"""Runs agents: in a worker, in the triggerer, alone, in teams and in batches."""
