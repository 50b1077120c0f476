"""Calibrators with a linear stage."""
