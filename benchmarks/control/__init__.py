"""``python -m benchmarks.control``: labels per second, predictions during a fit, admission."""
