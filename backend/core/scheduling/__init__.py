"""What schedules are to all processes."""
