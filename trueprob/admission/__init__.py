"""Admission of a candidate: the tests that it must pass to replace the live calibrator.

`decision` compares a cross-fitted candidate with the incumbent, `verdict` tests the conditions,
and `reference` compares both on a pinned set.
"""
