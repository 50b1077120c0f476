"""The ids that a prediction request gives to its rows, and the way of the answer to the memory.

Ids come from the body (`given`), or from a header: one id for a request of one row, with ``/0``,
``/1``, … behind it for several rows.
"""

from __future__ import annotations

from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.answer import Answer
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.request import RequestId
from trueprob_service.receipts.identified import (
    IdentifiedQueue,
    IdentifiedRows,
    different_ids,
    ids_of_rows,
)
from trueprob_service.receipts.receipt import Stamp

__all__ = ["chosen_ids", "remember"]


def chosen_ids(
    given: list[str] | None,
    request_id: RequestId | None,
    n: int,
    *,
    deployment: Deployment,
    queue: IdentifiedQueue | None,  # None: nothing is remembered here
) -> list[str]:
    """An id for each of n rows; `InvalidRequest` if they cannot be remembered."""
    if queue is None:
        raise InvalidRequest(
            "ids are not remembered here, because remember_ttl_seconds is 0: send labels with "
            "prediction_ids"
        )
    if deployment.revision is None:
        raise InvalidRequest(
            f"ids are remembered for the live version only, version {deployment.served.version} "
            "is not live"
        )
    if request_id is None:
        return different_ids(given or [], n)
    if given is not None:
        raise InvalidRequest(f"ids are given twice: in the body and as {request_id.name}")
    return ids_of_rows(request_id.text, n, request_id.name)


def remember(queue: IdentifiedQueue, answer: Answer, ids: list[str], stamp: Stamp) -> None:
    """Hand the rows of an answer to whoever remembers them; nothing here waits."""
    deployment = answer.deployment
    served, revision = deployment.served, deployment.revision
    candidate, predecessor = deployment.candidate, deployment.predecessor
    queue.put(
        IdentifiedRows(
            ids=ids,
            model=served.model,
            version=served.version,
            revision=0 if revision is None else revision,
            class_list=served.class_list_digest,
            prediction=answer.prediction,
            confidence=answer.confidence,
            logits=answer.logits,
            candidate=None if candidate is None else candidate.answer,
            predecessor=None if predecessor is None else predecessor.answer,
            stamp=stamp,
        )
    )
