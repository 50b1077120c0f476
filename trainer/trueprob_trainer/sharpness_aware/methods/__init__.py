"""The optimisers, one published method a file."""
