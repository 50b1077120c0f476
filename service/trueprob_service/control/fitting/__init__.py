"""Calibration sets and the fits on them: asked for, queued, run, judged."""
