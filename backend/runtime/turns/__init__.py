"""Turns of conversations: runs of a graph on a thread that is not only theirs, and what they stream."""
