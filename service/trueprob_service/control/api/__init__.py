"""The control routes, one noun a file."""
