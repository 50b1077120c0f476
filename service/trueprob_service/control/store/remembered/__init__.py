"""The table of remembered predictions."""
