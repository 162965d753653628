"""The arithmetic of model rate limits: adaptive rates, bursts and circuit breakers."""
