"""Findings about a calibration set: what speaks against a fit on it, and the repair.

`agreement` tests whether labels have anything to do with scores, `class_order` looks for a
numbering of the classes that fits better, and `set_check` combines them with simpler checks.
`incumbent_check` adds what a live calibrator and recent traffic know.
"""
