"""What a trained network is worth: clean, shifted, corrupted, attacked."""
