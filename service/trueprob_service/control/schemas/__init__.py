"""Bodies of the control routes' requests and answers, one noun a file."""
