"""Bodies of control requests and answers, one noun a file."""
