"""Scores of calibrated probabilities, one or a few related scores per module.

`score` computes the usual ones at once, `details` the others. `confidence`, `smooth_ece`,
`debiased_ece` and `brier` hold the single scores; `binned` holds the additive sums of a binned
ECE and its noise floor. `interval` bootstraps any of them.
"""
