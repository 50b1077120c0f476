"""SMART as published, for comparison: a small network from logit gap to temperature.

`network` evaluates it, `objective` trains it, `smart_mlp` holds the calibrator.
"""
