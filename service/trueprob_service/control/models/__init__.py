"""Models and their versions: found, declared, made live, shadowed, deleted."""
