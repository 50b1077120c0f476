"""What a request's receipts can be judged by: the promotions and class lists that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.control.store import Transaction
from service.control.store.models import ModelRow
from service.control.store.promotions import PromotionRow
from service.errors import ModelNotFound
from service.inference.deployment import ServedVersion
from service.receipts import Receipt, digest64

__all__ = ["Classes", "Histories", "History", "Label"]

Label = int | str


@dataclass(frozen=True)
class Classes:
    """The class list of a version.

    Attributes
    ----------
    digest : bytes
        As in receipts.
    index : mapping of str to int
        Class index of each name.
    """

    digest: bytes
    index: Mapping[str, int]

    def resolve(self, label: Label) -> int | None:
        """Class index of a label; None when it is no class."""
        if isinstance(label, str):
            return self.index.get(label)
        return label if 0 <= label < len(self.index) else None


@dataclass(frozen=True)
class History:
    """What the database says about the promotions that a request's receipts name.

    Attributes
    ----------
    model : bytes
        Digest of the model's name, as in receipts.
    model_id : int
        Place of the model in the list: another one when it was deleted and declared anew.
    live : PromotionRow
    promotions : mapping of int to PromotionRow
        By revision.
    classes : mapping of int to Classes
        By version.
    """

    model: bytes
    model_id: int
    live: PromotionRow
    promotions: Mapping[int, PromotionRow]
    classes: Mapping[int, Classes]

    def judge(
        self, receipt: Receipt | None, *, now: float, ttl_seconds: float
    ) -> tuple[str, Classes | None]:
        """Outcome of a label by its receipt alone, and the classes that its label is one of.

        Parameters
        ----------
        receipt : Receipt or None
            None for one that was not ours.
        now, ttl_seconds : float

        Returns
        -------
        outcome : str
            ``accepted``, ``expired``, ``forged``, ``foreign`` or ``superseded``.
        classes : Classes or None
        """
        if receipt is None:
            return "forged", None
        if receipt.model != self.model:
            return "foreign", None
        promotion = self.promotions.get(receipt.revision)
        if promotion is None or promotion.version != receipt.version:
            return "superseded", None
        classes = self.classes[promotion.version]
        if classes.digest != receipt.class_list:
            return "superseded", None
        if now - receipt.issued_at > ttl_seconds:
            return "expired", classes
        return "accepted", classes


class Histories:
    """Reads histories. Class lists never change, so each is read from the database once."""

    def __init__(self) -> None:
        self._classes: dict[tuple[int, int], Classes] = {}  # by place of the model, and version

    def read(
        self, transaction: Transaction, model: str, receipts: Sequence[Receipt | None]
    ) -> History:
        """The history that these receipts need.

        Raises
        ------
        ModelNotFound
        """
        row, live = transaction.models.get(model), transaction.promotions.live(model)
        if row is None or live is None:
            raise ModelNotFound(f"there is no model named {model!r}")
        ours = digest64(model)
        revisions = {r.revision for r in receipts if r is not None and r.model == ours}
        promotions = {
            revision: promotion
            for revision in sorted(revisions)
            if (promotion := transaction.promotions.get(model, revision)) is not None
        }
        versions = {live.version, *(each.version for each in promotions.values())}
        classes = {version: self._of(transaction, row, version) for version in versions}
        return History(ours, row.id, live, promotions, classes)

    def _of(self, transaction: Transaction, model: ModelRow, version: int) -> Classes:
        known = self._classes.get((model.id, version))
        if known is None:
            row = transaction.models.version(model.name, version)
            names = () if row is None else row.class_names
            known = Classes(
                ServedVersion(model.name, version, names).class_list_digest,
                {name: index for index, name in enumerate(names)},
            )
            self._classes[model.id, version] = known
        return known
