"""Calibrators with a linear stage: vector scaling, `smart-vector` and `smart-matrix`.

`stage` is the linear map, `fit` and `lbfgs` find its weights. `vector` and `smart_vector_matrix`
hold the calibrators.
"""
