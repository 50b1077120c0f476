"""Typed clients of the service (extra ``client``), for every route of docs/http-api.md.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict("digits", logits=logits)
        client.label("digits", answer.prediction_ids, labels)

`AsyncClient` has the same methods as coroutines. `requests` builds requests, `transport` sends them
and retries, `answers` reads the responses, `errors` has what is raised. The Open Inference routes
have their own clients. This package needs httpx; `import trueprob` does not import it.
"""

from trueprob.client.answers import (
    AlarmSummary,
    Calibration,
    CalibrationSetSummary,
    CalibrationVerdict,
    CalibratorSummary,
    ClassCalibration,
    ConfidenceMeans,
    FindingSummary,
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
from trueprob.client.errors import FitStillRunning, ServiceProblem, ServiceUnreachable

__all__ = [
    "AlarmSummary",
    "AsyncClient",
    "Calibration",
    "CalibrationSetSummary",
    "CalibrationVerdict",
    "CalibratorSummary",
    "ClassCalibration",
    "Client",
    "ConfidenceMeans",
    "FindingSummary",
    "FitStillRunning",
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
