"""The calibrator `smart`, the default: a temperature from the logit gap, then a confidence map.

`calibrator` holds the calibrator and `fit_smart`. `objective` and `fit` find its slopes,
`second_stage` the map of the confidence, and `rows` computes predictions quickly. `binary` is the
calibrator for two classes and `binary_fit` finds its map.
"""
