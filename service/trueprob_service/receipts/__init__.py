"""Prediction ids: signed records that hold all that a label needs."""
