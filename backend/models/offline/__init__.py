"""The offline models (`local:`), which work without a key and without a network."""
