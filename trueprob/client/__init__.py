"""A small client of the service (extra ``client``): everything of docs/http-api.md, typed.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.predict("digits", logits=logits)
        client.label("digits", answer.prediction_ids, labels)

`AsyncClient` has the same methods to be awaited. Each is written once, as a generator that yields
requests and is sent replies (`trueprob.client.flow`); the two clients differ in what carries those
requests only. The Open Inference routes have clients of their own and are left to them.

`import trueprob` does not import this, and httpx is loaded when a client is made.
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
    PromotionSummary,
    UploadedVersion,
    VersionSummary,
)
from trueprob.client.carriers import AsyncClient, Client
from trueprob.client.prediction import PartialPrediction, Prediction
from trueprob.client.problems import ServiceProblem, ServiceUnreachable
from trueprob.client.shadows import ShadowSummary

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
    "UploadedVersion",
    "VersionSummary",
]
