"""What becomes of a candidate: it goes live, shadows what is live, or is only kept.

All of it happens in the transaction that ends the fit. The data plane is told after the commit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from trueprob_service.control.fitting.worker import Fitted
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.shadows import start_shadow
from trueprob_service.control.revision import raise_revision
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.fits import FitRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.settings import Settings

__all__ = ["FitEnding", "Settled"]

_LOG: Final = logging.getLogger(__name__)
_DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True)
class Settled:
    """What the data plane has to know of a fit that ended."""

    candidate: CalibratorRow
    promoted: int | None  # the revision that it became
    shadows: int | None  # the revision that it shadows


class FitEnding:
    """Ends fits that came to a calibrator."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self.reference = settings.refit_reference

    def settle(
        self,
        transaction: Transaction,  # holds the locks of the model and of the fit
        fit: FitRow,
        incumbent: CalibratorRow,  # what the candidate was judged against
        fitted: Fitted,  # without an error
        *,
        judged_revision: int | None,  # what was live then
        now: float,
    ) -> Settled:
        """Keep the calibrator, do what was asked for with it, and end the fit."""
        transaction.calibrators.add(
            fit.model,
            fit.version,
            calibrator_id=fitted.calibrator,
            kind=fitted.kind,
            document=fitted.document,
            origin="fit",
            admitted=fitted.admitted,
            calibration_set=fit.calibration_set,
            now=now,
        )
        candidate = transaction.calibrators.get(fit.model, fit.version, fitted.calibrator)
        live = transaction.promotions.live(fit.model)
        if candidate is None or live is None:
            raise LookupError(f"model {fit.model} lost its live pair during a fit")
        settled, remarks = Settled(candidate, None, None), []
        if fit.promote == "always" or (fit.promote == "auto" and fitted.admitted):
            day = now - _DAY_SECONDS
            promoted_today = transaction.policy_fits.promoted(fit.model, since=day)
            obstacle = self._obstacle(fit, live, incumbent, promoted_today)
            if obstacle is None:
                promotion = raise_revision(
                    transaction,
                    live,
                    candidate,
                    cause="admitted" if fitted.admitted else "forced",
                    by=fit.created_by,
                    now=now,
                    fit=fit.id,
                )
                settled = Settled(candidate, promotion.revision, None)
            else:
                remarks.append(f"Not promoted: {obstacle}.")
        elif fit.promote == "shadow":
            obstacle = self._shadow(transaction, fit, live, candidate, now=now)
            if obstacle is None:
                settled = Settled(candidate, None, live.revision)
                remarks.append(f"In the shadow of revision {live.revision}.")
            else:
                remarks.append(f"Not put into the shadow: {obstacle}.")
        reasons = [*fitted.reasons, *fitted.warnings, *remarks]
        transaction.fits.end(
            fit.id,
            "done",
            now=now,
            seconds=fitted.seconds,
            verdict={"admitted": fitted.admitted, "reasons": reasons},
            scores=fitted.scores,
            warnings=list(fitted.warnings),
            judged_revision=judged_revision,
            calibrator=fitted.calibrator,
            admitted=fitted.admitted,
            promoted=settled.promoted is not None,
            revision=settled.promoted,
        )
        transaction.events.add(
            "candidate.admitted" if fitted.admitted else "candidate.refused",
            fit.model,
            {
                "version": fit.version,
                "calibrator": fitted.calibrator,
                "fit": str(fit.id),
                "trigger": fit.trigger,
                "reasons": reasons,
                "promoted": settled.promoted,
            },
            now=now,
        )
        if fit.trigger is not None:
            outcome = "admitted" if fitted.admitted else "refused"
            fate = "went live" if settled.promoted is not None else "is not live"
            told = (fit.model, fit.trigger, fitted.calibrator, outcome, fate)
            _LOG.info("refit of model %s for %s: %s was %s and %s", *told)
        return settled

    def take_over(self, settled: Settled) -> None:
        """Let this process answer accordingly; others follow."""
        candidate = settled.candidate
        if settled.promoted is not None:
            self._catalogue.deploy(candidate, revision=settled.promoted)
        if settled.shadows is not None:
            self._catalogue.shadow(candidate.model, settled.shadows, candidate)

    def _shadow(
        self,
        transaction: Transaction,
        fit: FitRow,
        live: PromotionRow,
        candidate: CalibratorRow,
        *,
        now: float,
    ) -> str | None:
        """Let a candidate shadow what is live; why that cannot be, if so."""
        if live.version != fit.version:
            return f"version {fit.version} is not the live one"
        if live.calibrator == candidate.calibrator:
            return "it is what is live"
        start_shadow(
            transaction,
            live,
            candidate,
            policy=self._settings.shadow_policy,
            alpha=self._settings.shadow_alpha,
            by=fit.created_by,
            now=now,
        )
        return None

    def _obstacle(
        self, fit: FitRow, live: PromotionRow, incumbent: CalibratorRow, promoted_today: int
    ) -> str | None:
        """Why a candidate that should be promoted is not."""
        if self._catalogue.find(fit.model, fit.version) is None:
            return f"version {fit.version} is not available here"
        if fit.promote == "always":
            return None
        limit = self._settings.refit_promotions_per_day
        if fit.trigger is not None and promoted_today >= limit:
            return f"the refit policy has promoted {promoted_today} times within a day"
        if live.version != fit.version:
            return f"version {fit.version} is not the live one"
        if live.calibrator != incumbent.calibrator:
            return "another calibrator went live while this one was fitted"
        return None
