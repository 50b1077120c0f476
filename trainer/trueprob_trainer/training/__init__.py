"""A run: its loop, what it saves, and where it goes on."""
