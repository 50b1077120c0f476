"""Quality, speed and rows needed of the calibrators: `python -m benchmarks.calibration`.

`sets` reads logits of real networks, `peers` fits everything that can be installed on the same
rows, `quality`, `sizes`, `ablations`, `shifts` and `speed` are one table each, `report` writes
them into docs/benchmarks.md.
"""
