"""Exports a finished run to ONNX and registers it as a model version."""
