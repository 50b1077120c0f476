"""The Open Inference Protocol on the same deployments."""
