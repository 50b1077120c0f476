"""A model's conditions change; the service notices and is recalibrated (docs/demo.md)."""
