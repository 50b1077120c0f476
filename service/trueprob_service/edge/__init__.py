"""The edge of the service: who asks, what is read, and how refusals look."""
