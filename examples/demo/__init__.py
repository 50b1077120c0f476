"""The demo: the inputs of a model change, the service notices and is refitted (docs/demo.md)."""
