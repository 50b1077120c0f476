"""The model repository on disk: versions, manifests and baselines."""
