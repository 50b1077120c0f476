"""Label shift: another mix of classes in the traffic than in the labelled rows.

`class_prior` estimates the mix from probabilities without labels and adapts probabilities to it.
`label_shift_check` says whether adapting is advised, with three checks on held-out labelled rows.
"""
