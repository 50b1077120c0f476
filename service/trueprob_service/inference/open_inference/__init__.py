"""The Open Inference Protocol v2, answered by the same deployments as predictions."""
