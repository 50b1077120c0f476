"""A typed client of the service (extra ``client``): everything of docs/http-api.md.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict("digits", logits=logits)
        client.label("digits", answer.prediction_ids, labels)

`AsyncClient` has the same methods to be awaited. `requests` builds what is sent, `answers` reads
what comes back, `transport` carries both and retries. The Open Inference routes have clients of
their own and are left to them. `import trueprob` does not import this; it needs httpx.
"""

from trueprob.client.answers import (
    AlarmSummary,
    Calibration,
    CalibrationSetSummary,
    CalibratorSummary,
    FitSummary,
    FitVerdict,
    LabelOutcome,
    LabelOutcomes,
    LivePair,
    ModelDescription,
    PartialPrediction,
    Prediction,
    PromotionSummary,
    ShadowSummary,
    VersionSummary,
)
from trueprob.client.async_client import AsyncClient
from trueprob.client.client import Client
from trueprob.client.transport import ServiceProblem, ServiceUnreachable

__all__ = [
    "AlarmSummary",
    "AsyncClient",
    "Calibration",
    "CalibrationSetSummary",
    "CalibratorSummary",
    "Client",
    "FitSummary",
    "FitVerdict",
    "LabelOutcome",
    "LabelOutcomes",
    "LivePair",
    "ModelDescription",
    "PartialPrediction",
    "Prediction",
    "PromotionSummary",
    "ServiceProblem",
    "ServiceUnreachable",
    "ShadowSummary",
    "VersionSummary",
]
