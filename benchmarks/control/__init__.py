"""``python -m benchmarks.control``: labels a second, predictions beside a fit, admission."""
