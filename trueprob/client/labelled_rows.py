"""Labels with the rows that they belong to, as a flow (see `trueprob.client.flow`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from trueprob.client.answers import LabelOutcome, LabelOutcomes, read
from trueprob.client.flow import JSON, Flow, Request, address, answered, to_json
from trueprob.errors import InvalidInput

__all__ = ["label_rows"]

MAX_ROWS: Final = 100_000  # of one request; more are sent in several
MAX_VALUES: Final = 1_000_000  # of one request: some 20 MB of JSON, under the service's 64 MiB


def label_rows(
    model: str,
    ids: Sequence[str],
    logits: ArrayLike,
    labels: Sequence[int | str] | ArrayLike,
    *,
    groups: Sequence[int | str] | ArrayLike | None = None,
    version: int | None = None,
) -> Flow[LabelOutcomes]:
    """Send labels with their logits, to be fitted on; each id counts once, however often it comes.

    Parameters
    ----------
    model : str
    ids : sequence of str
        Your names for the rows.
    logits : array_like of shape (n, k)
    labels : sequence of int or str
        Class indices or class names.
    groups : sequence of int or str, optional
        Shared by rows that are not independent.
    version : int, optional
        Whose logits they are; default: the live one at each request.

    Raises
    ------
    ServiceProblem, ServiceUnreachable
        Of many rows, earlier requests may have been taken. All may be sent again.
    """
    matrix = np.asarray(logits, np.float64)
    columns: dict[str, list[Any]] = {"id": list(ids), "label": _listed(labels)}
    if groups is not None:
        columns["group"] = _listed(groups)
    n = len(matrix)
    for name, values in columns.items():
        if matrix.ndim != 2 or len(values) != n:
            raise InvalidInput(
                f"logits must have shape ({len(values)}, k), one row for each {name}, "
                f"got {matrix.shape}",
                field="logits",
            )
    total = LabelOutcomes(0, 0, 0, ())
    path = address("v1", "models", model, "labels")
    step = max(1, min(MAX_ROWS, MAX_VALUES // max(matrix.shape[1], 1)))
    for start in range(0, max(n, 1), step):
        rows = [
            {**{name: columns[name][index] for name in columns}, "logits": matrix[index].tolist()}
            for index in range(start, min(start + step, n))
        ]
        request = Request(
            "POST", path, {"version": version}, JSON, to_json({"rows": rows}), again=True
        )
        part = read(LabelOutcomes, (yield from answered(request)).json())
        total = LabelOutcomes(
            total.accepted + part.accepted,
            total.duplicate + part.duplicate,
            total.rejected + part.rejected,
            (*total.outcomes, *(LabelOutcome(o.index + start, o.outcome) for o in part.outcomes)),
        )
    return total


def _listed(values: Sequence[int | str] | ArrayLike) -> list[Any]:
    return np.asarray(values).tolist() if isinstance(values, np.ndarray) else list(values)  # type: ignore[arg-type]
