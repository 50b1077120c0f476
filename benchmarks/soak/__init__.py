"""``python -m benchmarks.soak``: steady traffic for minutes; nothing may grow, fail or be lost."""
