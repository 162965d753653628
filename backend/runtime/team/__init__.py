"""Several agents in one task: parallel, sequential, graph and supervised."""
