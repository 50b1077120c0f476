"""Files to send to the demo model, and the demo."""
