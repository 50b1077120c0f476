"""Counts labels that come with their logits: each id once; the rows go to the refit window.

Such rows change neither the binned statistics nor the alarms, because the service did not make the
prediction. A row's key, a digest of its id, is stored like the nonce of a receipt: for as long as a
receipt is valid, from the arrival of the row. A row that is still in the window is a duplicate even
after that.

A row carries no time. If the clean-up job has already deleted keys of the present time (the clock
was ahead then, or is behind now), it is unknown whether an id is new. Rows are then ``expired``
until the clock has caught up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from trueprob.calibrators.input_stage import InputStage
from trueprob_service.control.labels.body import Label, ParsedRows, read_rows
from trueprob_service.control.labels.by_receipt import CLOCK_TOLERANCE_SECONDS
from trueprob_service.control.labels.counting import DAY_SECONDS, GroupTally, within_cap
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.labelled_rows import StoredLabelledRow
from trueprob_service.control.store.labels import NO_PROMOTION
from trueprob_service.control.store.models import VersionRow
from trueprob_service.errors import InvalidRequest, ModelNotFound, VersionNotFound
from trueprob_service.receipts.receipt import input_digests

__all__ = ["RowLabels"]

_KEY_BYTES: Final = 24
_PERSON: Final = b"trueprob row"


class RowLabels:
    """Counts labels that come with their logits."""

    def __init__(
        self,
        store: Store,
        window: RefitWindow,  # receives the rows
        *,
        masks: Callable[[str, int | None], InputStage | None],  # of a model and version
        labels_per_input: int,  # rows of one input that count in a day; 0: no limit
        ttl_seconds: int,  # minimum time for which an id is stored
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._labels_per_input = labels_per_input
        self._window = window
        self._masks = masks
        self._ttl_seconds = ttl_seconds
        self._clock = clock

    def count(
        self,
        model: str,
        document: Mapping[str, Any],  # with `rows`
        *,
        version: int | None,  # the version that made the logits; None: the live one
    ) -> list[str]:
        """Count the rows of a request, and return the outcome of each in order.

        Outcomes: ``accepted``, ``duplicate``, ``unknown_class``, ``expired`` or ``capped``. Raises
        `InvalidRequest` for an invalid row, or if no label is a class of the model, and
        `DatabaseUnavailable`. Nothing is stored then, and the request may be repeated.
        """
        now = self._clock()
        with self._store.read() as transaction:
            model_id, row = _version(transaction, model, version)
        rows = read_rows(document, n_classes=len(row.class_names))
        if (masks := self._masks(model, version)) is not None:
            rows = replace(rows, logits=masks.masked(rows.logits))
        labels = _resolve(rows.labels, row)
        _require_possible(rows, labels)
        keys = [_row_key(model_id, row_id) for row_id in rows.ids]
        with self._store.write() as transaction:
            if transaction.models.lock(model) != model_id:
                raise ModelNotFound(f"there is no model named {model!r}")
            return self._add(transaction, model_id, row, rows, labels, keys, now)

    def _add(
        self,
        transaction: Transaction,
        model_id: int,
        version: VersionRow,
        rows: ParsedRows,
        labels: Sequence[int | None],
        keys: Sequence[bytes],
        now: float,
    ) -> list[str]:
        first: dict[bytes, int] = {}
        outcomes = ["unknown_class" if label is None else "duplicate" for label in labels]
        for index, row_key in enumerate(keys):
            if labels[index] is not None:
                first.setdefault(row_key, index)
        keep_until = now + self._ttl_seconds + CLOCK_TOLERANCE_SECONDS
        claimed = transaction.label_keys.claim([*first], [keep_until] * len(first))
        fresh = {row_key for row_key, new in zip(first, claimed, strict=True) if new}
        # Read after the claim, so that it includes every deletion of keys before the claim.
        expired = now - self._ttl_seconds < transaction.high_water_marks.keys_before()
        if expired:
            transaction.label_keys.unclaim(fresh)
        fresh -= transaction.labelled_rows.stored(version.model, version.version, [*fresh])
        if expired:
            for index in first.values():
                outcomes[index] = "expired"
            fresh = set()
        given = [(row_key, index) for row_key, index in first.items() if row_key in fresh]
        inputs = input_digests(rows.logits[[index for _, index in given]])
        group, day = np.array(inputs, np.uint64), int(now // DAY_SECONDS)
        tally = GroupTally.claim(transaction, model_id, NO_PROMOTION, group, day=day)
        within = within_cap(tally.before, per_input=self._labels_per_input)
        tally.write(transaction, within)
        new = []
        for (row_key, index), counts in zip(given, within, strict=True):
            label = labels[index]
            outcomes[index] = "accepted" if counts else "capped"
            if counts and label is not None:
                logits = rows.logits[index].astype("<f4").tobytes()
                new.append(StoredLabelledRow(row_key, logits, label, rows.groups[index]))
        unused = [row_key for (row_key, _), counts in zip(given, within, strict=True) if not counts]
        transaction.label_keys.unclaim(unused)
        self._window.add(
            transaction,
            version.model,
            version.version,
            new,
            n_classes=len(version.class_names),
            now=now,
        )
        return outcomes


def _version(transaction: Transaction, model: str, version: int | None) -> tuple[int, VersionRow]:
    row, live = transaction.models.get(model), transaction.promotions.live(model)
    if row is None or live is None:
        raise ModelNotFound(f"there is no model named {model!r}")
    found = transaction.models.version(model, live.version if version is None else version)
    if found is None:
        raise VersionNotFound(f"model {model!r} has no version {version}")
    return row.id, found


def _resolve(labels: Sequence[Label], version: VersionRow) -> list[int | None]:
    """Class indices; None for unknown classes. Raises `InvalidRequest` if all are unknown."""
    index = {name: number for number, name in enumerate(version.class_names)}
    k = len(version.class_names)
    found = [
        index.get(label) if isinstance(label, str) else (label if 0 <= label < k else None)
        for label in labels
    ]
    if found and all(label is None for label in found):
        shown = repr(labels[0][:40]) if isinstance(labels[0], str) else labels[0]
        raise InvalidRequest(
            f"rows[0].label must be an integer 0..{k - 1} or a class name of model "
            f"{version.model!r}, got {shown}"
        )
    return found


def _require_possible(rows: ParsedRows, labels: Sequence[int | None]) -> None:
    """Raise `InvalidRequest` for labels of masked classes; one in the window would end each fit."""
    impossible = [
        index
        for index, label in enumerate(labels)
        if label is not None and np.isneginf(rows.logits[index, label])
    ]
    if impossible:
        raise InvalidRequest(
            f"labels must be classes that are not masked: those of {len(impossible)} of "
            f"{len(labels)} rows are, such as rows[{impossible[0]}].label"
        )


def _row_key(model_id: int, row_id: str) -> bytes:
    """The key under which a row counts once, 24 bytes.

    It contains the model's id, not its name, so a model that was deleted and declared again starts
    without rows.
    """
    name = f"{model_id} id {row_id}"
    return hashlib.blake2b(name.encode(), digest_size=_KEY_BYTES, person=_PERSON).digest()
