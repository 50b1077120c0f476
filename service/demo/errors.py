"""What ends the demo before its story begins, and nothing else does."""

__all__ = ["BadInput"]


class BadInput(Exception):
    """One sentence for the command line; exit code 2."""
