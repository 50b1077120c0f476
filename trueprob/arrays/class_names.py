"""Class names: what has names is matched by name, never by position.

Names that are the integers 0 to k − 1 are names too. Beside other names they stand for the classes
in their order. Like the order of columns, they say nothing else about a class, so digests and ids
leave them out when they are in order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput

__all__ = [
    "INTEGER",
    "as_class_names",
    "class_order",
    "require_order",
    "say_more_than_order",
    "shown",
]

INTEGER: Final = re.compile(r"-?[0-9]+")
SHOWN: Final = 10  # names of a list in a message
LONGEST: Final = 40  # characters of a name in a message


def as_class_names(
    values: Sequence[Any] | NDArray[Any], *, n_classes: int, name: str = "class_names"
) -> tuple[str, ...]:
    """Check the names of k classes: distinct, non-empty texts without NUL.

    Integers, as in an array ``classes_``, become texts. Raises InvalidInput.
    """
    array = np.asarray(values)
    listed: list[Any] = [] if isinstance(values, str) else array.reshape(-1).tolist()
    if array.dtype.kind == "S":
        listed = [text.decode("utf-8", errors="replace") for text in listed]
    if array.dtype.kind in "iu":
        listed = list(map(str, listed))
    if array.ndim != 1 or len(listed) != n_classes:
        got = f"shape {array.shape}" if array.ndim != 1 else f"{len(listed)}: {shown(listed)}"
        raise InvalidInput(f"{name} must name {n_classes} classes, got {got}", field=name)
    # NumPy would turn [1, "7"] into two texts.
    given = listed if isinstance(values, np.ndarray) or array.dtype.kind in "iu" else list(values)
    if not all(isinstance(text, str) and text and "\0" not in text for text in (*given, *listed)):
        raise InvalidInput(f"{name} must be non-empty texts without NUL", field=name)
    if len(set(listed)) < n_classes:
        twice = Counter(listed).most_common(1)[0][0]
        raise InvalidInput(
            f"{name} must differ from one another, {shown([twice])} occurs twice", field=name
        )
    return tuple(listed)


def class_order(
    given: Sequence[str], wanted: Sequence[str], *, name: str = "class_names"
) -> NDArray[np.int64]:
    """The index among `given` of each of the `wanted` classes.

    Raises InvalidInput that shows both lists if they do not name the same classes.
    """
    indices = [str(index) for index in range(len(wanted))]
    # Beside classes that are named by integers, an index could be taken for a name.
    if set(given) == set(indices) and not any(map(INTEGER.fullmatch, wanted)):
        wanted = indices
    if len(given) != len(wanted) or set(given) != set(wanted):
        raise InvalidInput(f"{name} {_different(given, wanted)}", field=name)
    place = {text: index for index, text in enumerate(given)}
    return np.array([place[text] for text in wanted], dtype=np.int64)


def require_order(given: Sequence[str], wanted: Sequence[str], *, name: str) -> None:
    """Raise InvalidInput that shows both lists unless they are the same classes in one order."""
    order = class_order(given, wanted, name=name)
    if np.any(order != np.arange(len(order))):
        raise InvalidInput(f"{name} {_different(given, wanted)}", field=name)


def _different(given: Sequence[str], wanted: Sequence[str]) -> str:
    text = f"must be {shown(wanted)}, got {shown(given)}"
    here, there = set(given), set(wanted)
    lacking = [name for name in wanted if name not in here]
    unknown = [name for name in given if name not in there]
    if not lacking and not unknown:
        return f"{text}: the same classes in another order"
    parts = [f"missing: {shown(lacking)}"] if lacking else []
    parts += [f"not expected: {shown(unknown)}"] if unknown else []
    return f"{text} ({'; '.join(parts)})"


def say_more_than_order(names: Collection[str] | None) -> bool:
    """Whether names say more about the classes than their order does."""
    return names is not None and list(names) != [str(index) for index in range(len(names))]


def shown(names: Sequence[object]) -> str:
    """Names for a message; of a long list the first ones and the number of all."""
    texts = [
        text[:LONGEST] if text.isprintable() else ascii(text[:LONGEST])
        for text in map(str, names[:SHOWN])
    ]
    more = f", … ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(texts) + more
