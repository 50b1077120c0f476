"""Fitting of a calibrator by the name of its method.

`fit` holds `trueprob.fit` and `trueprob.cross_fit`, `report` their results and warnings. `methods`
maps names to fit functions, and `auto` chooses among them by cross-validation.
"""
