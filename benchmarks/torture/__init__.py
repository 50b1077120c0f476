"""``python -m benchmarks.torture``: break a service under traffic; its ledger must agree."""
