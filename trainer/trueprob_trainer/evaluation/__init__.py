"""Scores of trained networks: on clean, shifted, corrupted and attacked test rows."""
