"""The commands for using a backend from a shell. They rely on its public HTTP API and nothing else."""
