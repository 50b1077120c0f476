"""Rows whose probabilities are right by construction, with a chosen mix of classes."""

import numpy as np

from trueprob import softmax


def calibrated_rows(seed, n, k, *, mix=None, scale=2.0, offset=0.0):
    """Logits and labels drawn from their softmax; with `mix`, classes are thinned in proportion."""
    generator = np.random.default_rng(seed)
    logits = scale * generator.normal(size=(n, k)) + offset
    labels = (logits + generator.gumbel(size=(n, k))).argmax(axis=1)
    if mix is not None:
        keep = generator.random(n) < (np.asarray(mix) / max(mix))[labels]
        logits, labels = logits[keep], labels[keep]
    return logits.astype(np.float32), labels


def probabilities(logits, *, temperature=1.0):
    return softmax((logits / temperature).astype(np.float32))


def nll(p, labels):
    return float(-np.log(p[np.arange(len(labels)), labels]).mean())
