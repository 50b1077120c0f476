"""Time and memory of sharpness-aware steps, beside other packages."""
