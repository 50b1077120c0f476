"""Input arrays: each is checked once, here, and trusted afterwards.

`logits`, `labels` and `weights_and_groups` check one array each; `logit_functions` computes on
checked logits (softmax, gap, prediction). `calibration_set` combines the arrays of a set.
`files` reads `.npz` and `.npy` from untrusted sources; `synced_files` writes durably.
"""
