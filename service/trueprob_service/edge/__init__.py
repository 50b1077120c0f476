"""The edge of the service: API keys, limits and encodings of bodies, and problem documents."""
