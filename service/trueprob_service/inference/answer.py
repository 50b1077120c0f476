"""From a deployment and logits to everything that an answer can say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob_service.inference.deployment import Deployment
from trueprob_service.input_digests import input_digests
from trueprob_service.receipts.receipt import Receipts

__all__ = ["Answer", "compute"]


@dataclass(frozen=True)
class Answer:
    """Calibrated probabilities of one request, and what they were computed with."""

    deployment: Deployment
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.int64]
    # the probability of the prediction; a receipt carries the same number as a float64
    confidence: NDArray[np.float32]
    temperature: NDArray[np.float64] | None
    logit_gap: NDArray[np.float32]  # nats

    def prediction_ids(self, receipts: Receipts) -> list[str]:
        """A signed receipt a row; only of a deployment that is live."""
        served, revision = self.deployment.served, self.deployment.revision
        shadow = self.deployment.shadow
        if revision is None:
            raise ValueError("a version that is not live gives no receipts")
        return receipts.issue(
            model=served.model_digest,
            version=served.version,
            revision=revision,
            class_list=served.class_list_digest,
            prediction=self.prediction,
            confidence=self.confidence.astype(np.float64),
            group=input_digests(self.logits),
            shadow=None if shadow is None else shadow.answer(self.logits),
        )


def compute(deployment: Deployment, logits: NDArray[np.float32]) -> Answer:
    """Calibrate logits."""
    found = deployment.calibrator.calibrated(logits)
    return Answer(
        deployment=deployment,
        logits=logits,
        probabilities=found.probabilities,
        prediction=found.prediction,
        confidence=found.confidence,
        temperature=found.temperature,
        logit_gap=found.logit_gap,
    )
