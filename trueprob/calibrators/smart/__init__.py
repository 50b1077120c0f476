"""The default calibrator."""
