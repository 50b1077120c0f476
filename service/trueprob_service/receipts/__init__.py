"""Receipts: signed prediction ids that hold all that a later label needs."""
