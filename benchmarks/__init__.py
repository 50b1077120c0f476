"""Benchmarks: not installed, run from the repository."""
