"""Bodies that are almost right: a valid one with some of its bytes changed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

# 500 examples, 10 000 under the profile `nightly` (tests/conftest.py).
FUZZ = settings(max_examples=5 * settings().max_examples)


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(body)))
        kind = draw(st.sampled_from(["replace", "insert", "delete", "repeat", "cut"]))
        if kind == "replace" and start < len(body):
            body[start] = draw(st.integers(0, 255))
        elif kind == "insert":
            body[start:start] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del body[start : start + draw(st.integers(1, 8))]
        elif kind == "repeat":
            body[start:start] = body[start : start + draw(st.integers(1, 64))]
        elif kind == "cut" and draw(st.booleans()):
            del body[start:]
    return bytes(body)
