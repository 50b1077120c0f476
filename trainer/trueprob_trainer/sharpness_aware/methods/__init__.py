"""The optimisers, one published method per module."""
