"""Arrays that were checked once: logits, labels, weights, calibration sets."""
