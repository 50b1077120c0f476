"""Models on disk: versions, manifests, baselines."""
