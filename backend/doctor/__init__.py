"""`python -m backend doctor`: what a configured model can do, and what to set for it."""
