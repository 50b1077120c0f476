"""SAM every k steps and the plain base in between: most of the gain at little extra cost.

Step 0 is a SAM step, then come k − 1 plain ones, and so on. Rarer SAM steps need a larger radius:
ρ = 0.5 for k = 10, where SAM takes 0.05. The scheme is folklore; the LookSAM paper
(arXiv:2203.02714) calls it SAM-k and loses accuracy with it, at SAM's ρ.

The position in the cycle is in the checkpoint.
"""

from typing import Any

from trueprob_trainer.sharpness_aware.methods.sam import SAM


class PeriodicSAM(SAM):
    """A SAM step, then k − 1 steps of the base alone.

    Parameters
    ----------
    base : torch.optim.Optimizer
    rho : float
        Radius in the 2-norm of the weights, at least 0; 0.5 suits k = 10.
    k : int
        Length of the cycle in steps, at least 1; 1 is SAM.
    **shared
        See :class:`TwoPassOptimizer`.

    Raises
    ------
    ValueError
        ``k`` is not a positive integer.
    """

    def __init__(self, base: Any, rho: float = 0.5, *, k: int = 10, **shared: Any) -> None:
        super().__init__(base, rho, **shared)
        if k < 1 or k != int(k):
            raise ValueError(f"k must be an integer and at least 1, got {k}")
        self.k = k
        self._position = 0

    @property
    def second_pass_due(self) -> bool:
        """Whether this is the SAM step of the cycle."""
        return self._position == 0

    def before_step(self) -> None:
        """Go on in the cycle, unless the step is skipped."""
        if not self._overflowed:
            self._position = (self._position + 1) % self.k

    def _ascent_state(self) -> dict[str, Any]:
        return {"position": self._position}

    def _load_ascent_state(self, ascent: dict[str, Any]) -> None:
        self._position = ascent["position"] % self.k
