"""Records what agents do, for the database and for Langfuse."""
