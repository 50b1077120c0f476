"""Bodies of predictions, one format a file: bytes to arrays and back."""
