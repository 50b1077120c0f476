"""What was acknowledged against what the service has: labels, answers, promotions and fits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx

from benchmarks.crash.finale import sent_again
from benchmarks.crash.label_traffic import LabelTraffic
from benchmarks.crash.ledger import Totals, differences
from benchmarks.torture.answers import ObservedAnswers
from benchmarks.torture.deployment import CannotTest
from benchmarks.torture.operator import Operator
from trueprob.client import Client, ServiceProblem, ServiceUnreachable

__all__ = ["Reconciliation"]

ATTEMPTS: Final = 10


class Reconciliation:
    """Compares a model's records with the service, while no traffic goes on.

    Parameters
    ----------
    model : str
    labels : LabelTraffic
    answers : ObservedAnswers
    operator : Operator or None
    totals : callable
        Reads the totals of the model, once they are as its argument or surely fresh.
    before : mapping
        Totals before the first label.
    """

    def __init__(
        self,
        model: str,
        labels: LabelTraffic,
        answers: ObservedAnswers,
        operator: Operator | None,
        totals: Callable[[Totals], Totals],
        before: Totals,
    ) -> None:
        self.answers = answers
        self._model = model
        self._labels = labels
        self._operator = operator
        self._totals = totals
        self._before = before

    def settled(self, client: Client) -> Iterator[str]:
        """Send what is uncertain again; a sentence for each thing that disagrees."""
        for attempt in range(ATTEMPTS):
            try:
                self._labels.send_uncertain(client)
                break
            except (ServiceProblem, ServiceUnreachable) as error:
                if attempt == ATTEMPTS - 1:
                    yield f"labels cannot be sent again: {error}"
                    return
                time.sleep(1)
        try:
            yield from self._compared_totals()
            yield from self.answers.differences(client, self._model)
            if self._operator is not None:
                yield from self._operator.differences(client)
        except (ServiceProblem, ServiceUnreachable) as error:
            yield f"it cannot be compared: {error}"

    def final(self, client: Client) -> Iterator[str]:
        """Send everything once more; a sentence for each thing that disagrees."""
        try:
            yield from sent_again(client, self._model, self._labels.ledger, "duplicate")
            yield from self._compared_totals()
            if self._operator is not None:
                yield from self._operator.unended(client)
        except (ServiceProblem, ServiceUnreachable) as error:
            yield f"not everything could be sent once more: {error}"

    def _compared_totals(self) -> Iterator[str]:
        counted, before, zero = self._labels.ledger.totals(), self._before, (0.0, 0.0, 0.0)
        wanted = {
            key: tuple(
                a + b for a, b in zip(before.get(key, zero), counted.get(key, zero), strict=True)
            )
            for key in {*before, *counted}
        }
        try:
            totals = self._totals(wanted)
        except CannotTest as error:
            yield str(error)
            return
        except (httpx.HTTPError, ServiceProblem, ServiceUnreachable) as error:
            yield f"the totals cannot be read: {error}"
            return
        more = sum(each[0] for each in totals.values()) - sum(each[0] for each in wanted.values())
        if more > 0:
            yield (
                f"{more:g} labels more than were acknowledged are counted: some twice, or somebody "
                "else labels this model"
            )
        elif more < 0:
            yield f"{-more:g} labels that were acknowledged are not counted"
        yield from differences(wanted, totals)
