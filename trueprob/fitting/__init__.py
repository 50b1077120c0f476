"""Fitting by name."""
