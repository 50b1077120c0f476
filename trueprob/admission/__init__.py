"""Whether a candidate may replace what is live."""
