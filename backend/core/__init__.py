"""Pure rules and types, without I/O and without a framework."""
