"""``python -m benchmarks.crash``: kill -9 at random times; the ledger must agree."""
