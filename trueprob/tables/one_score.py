"""A lone column of scores of a table: P(class 1), or its log-odds, of two classes.

The name of the column says which class the score is of, `prob_yes` or `logit_1`; a name for scores
in general, such as `score` or `p`, stands for class 1. The class of the score becomes the second
column, unless the order of the classes is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import shown
from trueprob.errors import InvalidInput
from trueprob.tables.columns import PREFIXES, UNSPECIFIED, ColumnChoice, Columns, label_values

__all__ = ["two_columns"]

PROBABILITY: Final = re.compile(
    r"p_?1?|(y_)?(score|prob|proba|probability|probabilities|pred_proba)s?_?1?", re.IGNORECASE
)
LOG_ODDS: Final = re.compile(r"logits?_?1?|log_odds|decision_function|margin", re.IGNORECASE)
TRUTH_VALUES: Final = {"false": "0", "true": "1"}


def two_columns(
    columns: Columns,
    scores: NDArray[Any],
    labels: Sequence[Any] | None,
    choice: ColumnChoice,
    name: str,
) -> tuple[str, NDArray[np.float64], tuple[str, ...] | None, list[int | str] | None, str]:
    """Turn a lone column of scores into the columns of two classes.

    Parameters
    ----------
    columns : Columns
        With one class.
    scores : ndarray of shape (n,)
        Probabilities in 0 … 1, their logarithms, or log-odds in nats.
    labels : sequence of n cells, or None
    choice : ColumnChoice
    name : str
        Name of the file in messages.

    Returns
    -------
    numbers : {"logits", "probabilities", "log_probabilities"}
    values : ndarray of shape (n, 2), float64
    class_names : tuple of two strings, or None
        None if the file and the choice do not name both classes.
    labels : list of n labels, or None
    note : str
        What was understood.

    Raises
    ------
    InvalidInput
        The name does not say that it is a lone score, the numbers are out of range, or the class
        of the score or the other one is not known.
    """
    column = columns.class_names[0]
    numbers = _numbers(columns, scores, choice, name)
    one = "1" if columns.numbers == UNSPECIFIED else column
    names = _names(one, labels, choice, name)
    position = 1 if names is None else names.index(one)
    values = np.empty((len(scores), 2))
    values[:, position] = scores
    if numbers == "logits":
        values[:, 1 - position] = 0
    else:
        p = scores if numbers == "probabilities" else np.exp(scores.astype(np.float64))
        outside = ~((p >= 0) & (p <= 1))
        if outside.any():
            raise InvalidInput(
                f"{name} must have probabilities from 0 to 1 in column {column[:40]!r}, "
                f"row {int(outside.argmax())} has another number",
                field=numbers,
            )
        with np.errstate(divide="ignore"):
            values[:, 1 - position] = 1 - p if numbers == "probabilities" else np.log1p(-p)
    what = {"logits": "log P({0}) − log P(not {0})", "log_probabilities": "log P({0})"}
    prefix = next((p for p, kind in PREFIXES.items() if kind == columns.numbers), "")
    note = (
        f"{name}: column {prefix + column[:40]!r} is the only one of scores and is read as "
        f"{what.get(numbers, 'P({0})').format(one[:40])}, of two classes"
    )
    found = None if labels is None else _labels(labels, names, one, name)
    return numbers, values, names, found, note


def _numbers(columns: Columns, scores: NDArray[Any], choice: ColumnChoice, name: str) -> str:
    column = columns.class_names[0]
    if columns.numbers != UNSPECIFIED:
        return columns.numbers
    if LOG_ODDS.fullmatch(column):
        return choice.numbers or "logits"
    is_score = PROBABILITY.fullmatch(column) is not None
    if choice.numbers is not None and (is_score or choice.scores is not None):
        return choice.numbers
    if is_score and bool(np.all((scores >= 0) & (scores <= 1))):
        return "probabilities"
    if is_score:
        advice = choice.advice("give --input logits", "name it logit_1")
        raise InvalidInput(
            f"{name} has one column of scores, {column[:40]!r}, with numbers from "
            f"{scores.min():.6g} to {scores.max():.6g}, which are no probabilities: {advice} if "
            "they are log-odds of class 1",
            field="input",
        )
    ids = shown([*columns.ids])
    also = f"taken as ids: {ids} ({choice.otherwise}); " if columns.ids else ""
    raise InvalidInput(
        f"{name} must have a column for each of at least two classes, got 1, {column[:40]!r}; "
        f"{also}a lone score of two classes is named prob_CLASS, logit_CLASS, p or score",
        field="file",
    )


def _names(
    column: str, labels: Sequence[Any] | None, choice: ColumnChoice, name: str
) -> tuple[str, ...] | None:
    """Names of both classes in their order; None if the other class is not known."""
    wanted = choice.class_names
    if wanted is not None and column in wanted and len(wanted) == 2:
        return wanted
    if column in ("0", "1"):
        return ("0", "1")
    if wanted is not None:
        # By order it could be the score of the other class.
        raise InvalidInput(
            f"{name} has scores of class {column[:40]!r} only, of two classes; the classes must be "
            f"{shown(wanted)}",
            field="class_names",
        )
    texts = {str(label).strip() for label in labels or ()}
    if column in texts and len(texts) == 2:
        return ((texts - {column}).pop(), column)
    return None


def _labels(
    labels: Sequence[Any], names: tuple[str, ...] | None, column: str, name: str
) -> list[int | str]:
    found = label_values(labels, names, name)
    if names == ("0", "1"):
        return [TRUTH_VALUES.get(str(label).lower(), label) for label in found]
    for row, label in enumerate(found):
        if names is None and isinstance(label, str):
            raise InvalidInput(
                f"{name} must have two classes in its column of labels, one of them "
                f"{column[:40]!r}, or labels 0 and 1, beside a lone column of scores; "
                f"row {row} has {label[:40]!r}",
                field="labels",
            )
    return found
