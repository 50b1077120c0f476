"""The compared servers; each module runs in the environment of its server."""
