"""The audit trail of control actions: refused ones, reading it, verifying it, and its clean-up."""
