"""Declares models over HTTP, and deletes models.

The network of a declared model runs elsewhere; clients send its logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from trueprob.arrays.class_names import shown
from trueprob.calibrators import IdentityCalibrator, dumps_calibrator
from trueprob.calibrators.input_stage import mask_stage
from trueprob.repository.manifest import valid_model_name
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.control.models.catalogue import Catalogue, add_version, promote_first
from trueprob_service.control.models.promotion import lock_live_pair
from trueprob_service.control.models.replica_sync import ReplicaSync
from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, DatabaseUnavailable, InvalidRequest
from trueprob_service.inference.deployment import ServedVersion

__all__ = ["MAX_CLASSES", "Declarations", "Deletions"]

MAX_CLASSES: Final = 200_000


class Declarations:
    """Adds declared models."""

    def __init__(self, store: Store, catalogue: Catalogue, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    def declare(
        self,
        model: str,
        *,
        n_classes: int | None,
        class_names: Sequence[str] | None,  # default: the indices as text
        mask_below: float | None = None,  # see `trueprob.fit`; None and "learn": as declared before
        zeros: str = "learn",
        by: str | None,  # id of the API key
    ) -> bool:
        """Register a model with version 1 and the identity calibrator, live at once.

        Its calibrators keep `mask_below` and `zeros`. Returns False if the model exists with the
        same classes and masks. Raises `Conflict` if it has others, `InvalidRequest` if a name or
        number cannot be used, and `InvalidInput` for masks that cannot be.
        """
        names = _class_names(n_classes, class_names)
        if not valid_model_name(model):
            raise InvalidRequest(
                "the model's name must be 1 to 100 letters, digits, '_', '.' or '-', begin with a "
                "letter or a digit and have no '..'"
            )
        masks = mask_stage(mask_below, zeros)
        identity, now = IdentityCalibrator(len(names)).with_masks(masks), self._clock()
        with self._store.write() as transaction:
            if not transaction.models.add(model, declared=True, now=now):
                live = transaction.promotions.live(model)
                known = transaction.models.version(model, live.version) if live else None
                if known is None or len(known.class_names) != len(names):
                    has = "no version" if known is None else f"{len(known.class_names)} classes"
                    raise Conflict(f"model {model!r} has {has}, the request says {len(names)}")
                if class_names is not None and known.class_names != names:
                    raise Conflict(
                        f"class_names must be those of model {model!r}, "
                        f"{shown(known.class_names)}, got {shown(names)}"
                    )
                if masks is not None and identity.id != known.factory_calibrator:
                    raise Conflict(
                        f"model {model!r} was declared with other masks: mask_below and zeros of a "
                        "model cannot change"
                    )
                return False
            transaction.audit.add("model.declare", model, now=now, detail={"n_classes": len(names)})
            add_version(
                transaction,
                model,
                1,
                class_names=names,
                factory=identity,
                document=dumps_calibrator(identity).decode(),
                now=now,
            )
            promote_first(transaction, model, 1, identity.id, by=by, now=now)
            row = transaction.calibrators.get(model, 1, identity.id)
            live = transaction.promotions.live(model)
        self._catalogue.add_declared(ServedVersion(model, 1, names))
        if row is not None and live is not None:
            self._catalogue.deploy(row, revision=live.revision)
        return True


def _class_names(n_classes: int | None, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if n_classes is None and class_names is None:
        raise InvalidRequest("n_classes, class_names or live_version must be given")
    count = len(class_names or ()) if n_classes is None else n_classes
    if not 2 <= count <= MAX_CLASSES:
        raise InvalidRequest(f"n_classes must be 2 to {MAX_CLASSES}, got {count}")
    if class_names is None:
        return tuple(str(index) for index in range(count))
    if len(class_names) != count:
        raise InvalidRequest(f"class_names must have {count} names, got {len(class_names)}")
    for index, name in enumerate(class_names):
        if not name or "\0" in name:
            raise InvalidRequest(f"class_names[{index}] must be a non-empty text without NUL")
    if len(set(class_names)) != count:
        raise InvalidRequest("class_names must differ from one another")
    return tuple(class_names)


class Deletions:
    """Deletes models, with all their rows in the database.

    Their fits end: waiting ones at once, a running one when it next extends its lease. The clean-up
    job deletes the files of their sets. Other processes stop answering at their next sync. Labels
    of the models' predictions count for no model.
    """

    def __init__(
        self,
        store: Store,
        replica_sync: ReplicaSync,  # removes the model from the data plane
        *,
        on_fits_ended: Callable[[], None],  # called after the fits were deleted
        root: Path,  # the model repository; versions there would be found again
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._replica_sync = replica_sync
        self._on_fits_ended = on_fits_ended
        self._root = root
        self._clock = clock

    def delete(self, model: str, *, expected: int) -> None:
        """Delete a declared model, or one whose folder was removed.

        Raises `Conflict` if the model repository has versions of it.
        """
        with self._store.write() as transaction:
            live = lock_live_pair(transaction, model, expected)
            row = transaction.models.get(model)
            declared = row is not None and row.declared
            versions = [] if declared else ModelRepository(self._root).versions(model)
            if versions:
                raise Conflict(
                    f"model {model!r} has version {versions[-1]} in the model repository and would "
                    "come back: remove its folder there first"
                )
            now = self._clock()
            transaction.deleted_models.delete(model, revision=live.revision, now=now)
            transaction.audit.add("model.delete", model, now=now, revision=live.revision)
        self._on_fits_ended()
        with contextlib.suppress(
            DatabaseUnavailable
        ):  # the model is deleted; the next sync applies that
            self._replica_sync.sync()
