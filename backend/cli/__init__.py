"""The commands with which people use a backend from a shell. They know nothing of it but its public HTTP API."""
