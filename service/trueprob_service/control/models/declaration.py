"""Models declared over HTTP: their network runs elsewhere, only logits come here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from trueprob.calibrators import IdentityCalibrator, dumps_calibrator
from trueprob.repository.manifest import valid_model_name
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.registration import add_version, promote_first
from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, InvalidRequest
from trueprob_service.inference.deployment import ServedVersion

__all__ = ["MAX_CLASSES", "Declarations"]

MAX_CLASSES: Final = 200_000


class Declarations:
    """Adds models without files."""

    def __init__(self, store: Store, catalogue: Catalogue, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    def declare(
        self,
        model: str,
        *,
        n_classes: int | None,
        class_names: Sequence[str] | None,
        by: str | None,  # id of the API key
    ) -> bool:
        """Register a logits-only model: version 1 with the identity calibrator, live at once.

        Returns: whether it is new; False when it is there already with the same classes. Raises
        `InvalidRequest`: a name or a number cannot be used. Raises `Conflict`: the model is there
        with other classes.
        """
        names = _class_names(n_classes, class_names)
        if not valid_model_name(model):
            raise InvalidRequest(
                "the model's name must be 1 to 100 letters, digits, '_', '.' or '-', begin with a "
                "letter or a digit and have no '..'"
            )
        identity, now = IdentityCalibrator(len(names)), self._clock()
        with self._store.write() as transaction:
            if not transaction.models.add(model, declared=True, now=now):
                live = transaction.promotions.live(model)
                known = transaction.models.version(model, live.version) if live else None
                if known is None or len(known.class_names) != len(names):
                    has = "no version" if known is None else f"{len(known.class_names)} classes"
                    raise Conflict(f"model {model!r} has {has}, the request says {len(names)}")
                if class_names is not None and known.class_names != names:
                    raise Conflict(f"model {model!r} has other class_names")
                return False
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
        self._catalogue.declare(ServedVersion(model, 1, names))
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
