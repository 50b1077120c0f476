"""Pictures: one decoder and one preparation for the service and the trainer (needs Pillow)."""
