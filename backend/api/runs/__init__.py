"""What a run leaves behind, in parts: values, traces, questions."""
