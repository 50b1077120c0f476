"""Calibration of sharpness-aware optimisers before and after SMART: three seeds, two sets."""
