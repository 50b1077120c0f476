"""Training runs: the loop, its checkpoints, and the finished run."""
