"""Background work and operations: clean-up job, webhook delivery, export and import."""
