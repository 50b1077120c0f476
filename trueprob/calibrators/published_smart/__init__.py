"""SMART as published: a small network from gap to temperature."""
