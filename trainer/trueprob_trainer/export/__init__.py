"""From a finished run to a version in the model repository."""
