"""Example data for the demo model, and the demo."""
