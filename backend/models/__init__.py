"""Model calls: resolving a model, calling it under the error policy, and counting its usage."""
