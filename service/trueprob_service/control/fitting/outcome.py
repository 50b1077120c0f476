"""Decides the outcome of a candidate: it goes live, becomes a shadow, or is only stored.

All changes are in the transaction that ends the fit. The data plane is updated after the commit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from trueprob_service.control.fitting.worker import JobResult
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.models.promotion import PromotedPair, raise_revision
from trueprob_service.control.models.shadows import start_shadow
from trueprob_service.control.store import Transaction
from trueprob_service.control.store.fits import FitRow
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.settings import Settings

__all__ = ["CandidateOutcome", "CandidateOutcomes"]

_LOG: Final = logging.getLogger(__name__)
_DAY_SECONDS: Final = 86_400.0
_REVERTED: Final = "it went live before, and labels proved it worse than its predecessor"


@dataclass(frozen=True)
class CandidateOutcome:
    """The outcome of a fit's candidate."""

    candidate: CalibratorRow
    promoted: PromotedPair | None = None  # the candidate, if it went live
    shadows: int | None = None  # the live revision that it shadows
    remark: str | None = None  # a sentence for the fit's report


class CandidateOutcomes:
    """Decides and stores the outcomes of candidates."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self.reference = settings.refit_reference  # name of the set that refits are checked on

    def store(
        self,
        transaction: Transaction,  # holds the locks of the model and of the fit
        fit: FitRow,
        incumbent: CalibratorRow,  # the candidate was judged against it
        result: JobResult,  # without an error
        *,
        judged_revision: int | None,  # the live revision at the time of the claim
        now: float,
    ) -> CandidateOutcome:
        """Store the candidate, promote or shadow it as requested, and end the fit."""
        transaction.calibrators.add(
            fit.model,
            fit.version,
            calibrator_id=result.calibrator,
            kind=result.kind,
            document=result.document,
            origin="fit",
            admitted=result.admitted,
            calibration_set=fit.calibration_set,
            now=now,
        )
        candidate = transaction.calibrators.get(fit.model, fit.version, result.calibrator)
        live = transaction.promotions.live(fit.model)
        if candidate is None or live is None:
            raise LookupError(f"model {fit.model} lost its live pair during a fit")
        outcome = CandidateOutcome(candidate)
        if fit.promote == "always" or (fit.promote == "auto" and result.admitted):
            outcome = self._promote(
                transaction, fit, live, incumbent, candidate, admitted=result.admitted, now=now
            )
        elif fit.promote == "shadow":
            outcome = self._shadow(transaction, fit, live, candidate, held=result.held, now=now)
        self._end(transaction, fit, result, outcome, judged_revision=judged_revision, now=now)
        return outcome

    def deploy(self, outcome: CandidateOutcome) -> None:
        """Update the deployments of this process; other processes poll the database."""
        candidate = outcome.candidate
        if outcome.promoted is not None:
            outcome.promoted.deploy(self._catalogue)
        if outcome.shadows is not None:
            self._catalogue.shadow(candidate.model, outcome.shadows, "candidate", candidate)

    def _promote(
        self,
        transaction: Transaction,
        fit: FitRow,
        live: PromotionRow,
        incumbent: CalibratorRow,
        candidate: CalibratorRow,
        *,
        admitted: bool,
        now: float,
    ) -> CandidateOutcome:
        promoted_today = transaction.policy_fits.promoted(fit.model, since=now - _DAY_SECONDS)
        obstacle = self._obstacle(fit, live, incumbent, candidate, promoted_today)
        if obstacle is not None:
            return CandidateOutcome(candidate, remark=f"Not promoted: {obstacle}.")
        pair = raise_revision(
            transaction,
            live,
            candidate,
            settings=self._settings,
            cause="admitted" if admitted and not candidate.reverted else "forced",
            by=fit.created_by,
            now=now,
            fit=fit.id,
        )
        return CandidateOutcome(candidate, promoted=pair)

    def _obstacle(
        self,
        fit: FitRow,
        live: PromotionRow,
        incumbent: CalibratorRow,
        candidate: CalibratorRow,
        promoted_today: int,
    ) -> str | None:
        """The reason why a candidate cannot be promoted, or None."""
        if self._catalogue.find(fit.model, fit.version) is None:
            return f"version {fit.version} is not available here"
        if fit.promote == "always":
            return None
        if candidate.reverted:
            return f"{_REVERTED}; promote=always or ?force=true promotes it anyway"
        limit = self._settings.refit_promotions_per_day
        if fit.trigger is not None and promoted_today >= limit:
            return f"the refit policy has promoted {promoted_today} times within a day"
        if live.version != fit.version:
            return f"version {fit.version} is not the live one"
        if live.calibrator != incumbent.calibrator:
            return "another calibrator went live while this one was fitted"
        return None

    def _shadow(
        self,
        transaction: Transaction,
        fit: FitRow,
        live: PromotionRow,
        candidate: CalibratorRow,
        *,
        held: bool,  # it is compared, but does not act on its own
        now: float,
    ) -> CandidateOutcome:
        obstacle = None
        if live.version != fit.version:
            obstacle = f"version {fit.version} is not the live one"
        elif live.calibrator == candidate.calibrator:
            obstacle = "it is already live"
        if obstacle is not None:
            return CandidateOutcome(candidate, remark=f"Not put into the shadow: {obstacle}.")
        start_shadow(
            transaction,
            live,
            candidate,
            "candidate",
            policy="tell" if held else self._settings.shadow_policy,
            alpha=self._settings.shadow_alpha,
            by=fit.created_by,
            now=now,
        )
        remark = f"In the shadow of revision {live.revision}."
        if candidate.reverted:
            remark += f" Labels will not promote it: {_REVERTED}."
        return CandidateOutcome(candidate, shadows=live.revision, remark=remark)

    def _end(
        self,
        transaction: Transaction,
        fit: FitRow,
        result: JobResult,
        outcome: CandidateOutcome,
        *,
        judged_revision: int | None,
        now: float,
    ) -> None:
        """Write the fit's report and its event."""
        revision = None if outcome.promoted is None else outcome.promoted.promotion.revision
        judged = "held" if result.held else "admitted" if result.admitted else "refused"
        reasons = list(result.reasons)
        if outcome.remark is not None:
            reasons.append(outcome.remark)
        transaction.fits.end(
            fit.id,
            "done",
            now=now,
            seconds=result.seconds,
            verdict={
                "admitted": result.admitted,
                "outcome": judged,
                "reasons": reasons,
                "findings": list(result.findings),
                "set": result.on_set,
                "traffic": result.on_traffic,
                "label_shift": result.label_shift,
            },
            scores=result.scores,
            warnings=list(result.warnings),
            judged_revision=judged_revision,
            calibrator=result.calibrator,
            admitted=result.admitted,
            held=result.held,
            promoted=revision is not None,
            revision=revision,
        )
        transaction.events.add(
            f"candidate.{judged}",
            fit.model,
            {
                "version": fit.version,
                "calibrator": result.calibrator,
                "fit": str(fit.id),
                "trigger": fit.trigger,
                "reasons": reasons,
                "promoted": revision,
            },
            now=now,
        )
        if result.held:
            _LOG.warning("fit %d of model %s is held: %s", fit.id, fit.model, reasons[0])
        if fit.trigger is not None:
            place = "went live" if revision is not None else "did not go live"
            _LOG.info(
                "refit of model %s for %s: %s was %s and %s",
                fit.model, fit.trigger, result.calibrator, judged, place,
            )  # fmt: skip
