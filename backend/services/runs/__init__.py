"""Status, control and logs of runs."""
