"""Formats of bodies, one per file: bytes to arrays, and answers to bytes."""
