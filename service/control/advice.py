"""One sentence on what label statistics mean and what to do about them."""

from __future__ import annotations

from typing import Final

from trueprob.binned import BinnedCalibration

__all__ = ["advice"]

# Below this sum of p(1 - p) the normal approximation of the noise floor says little.
_ENOUGH_VARIANCE: Final = 20.0


def advice(model: str, window: str, binned: BinnedCalibration, *, tolerance: float) -> str:
    """What to do, in a sentence.

    Parameters
    ----------
    model : str
    window : str
        As the client wrote it.
    binned : BinnedCalibration
        Statistics of the labels within the window.
    tolerance : float
        Calibration error that is not worth an alarm.
    """
    n = int(binned.n)
    labels = f"{n} label" if n == 1 else f"{n} labels"
    if n == 0:
        return (
            f"No labels in the last {window}: send them to /v1/models/{model}/labels to learn "
            "whether the probabilities hold."
        )
    if float(binned.variance.sum()) < _ENOUGH_VARIANCE:
        return f"{labels} are too few to tell: collect more before judging the calibration."
    if not binned.miscalibrated(tolerance):
        return f"Calibrated within what {labels} can tell."
    excess = binned.mean_confidence() - binned.accuracy()
    how = (
        f"confidence is {abs(excess):.3f} too {'high' if excess > 0 else 'low'} on average"
        if abs(excess) > tolerance
        else "confidence is too high in some bins and too low in others"
    )
    return (
        f"Miscalibrated: ECE {binned.ece():.3f} where noise explains {binned.ece_floor():.3f} and "
        f"{how}; upload recent labelled rows to /v1/models/{model}/calibration-sets."
    )
