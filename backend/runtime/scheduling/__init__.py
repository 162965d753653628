"""What the DAGs of schedules need: the schedules when they are parsed, and to ask for a run when one is due."""
