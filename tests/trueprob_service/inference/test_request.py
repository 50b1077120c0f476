import pytest

from trueprob_service.errors import NotAcceptable
from trueprob_service.inference.request import negotiate

OFFERED = ("application/json", "application/x-npy", "application/x-npz")
JSON, NPY, NPZ = OFFERED


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("Application/X-NPZ", NPZ),
        ("application/x-npy, application/json", NPY),
        ("application/x-npy;q=0.5, application/json", JSON),
        ("application/x-npy;q=0.5, application/json;q=0.4, */*;q=0.1", NPY),
        ("*/*, application/x-npz", NPZ),  # says more than */*
        ("application/json;q=0, */*", NPY),  # the specific range excludes
        ("application/*;q=0.2, application/x-npz;q=0.3", NPZ),
        ("application/json;q=0, application/x-npy;q=0, */*;q=0.001", NPZ),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        ("text/html,,application/json;charset=utf-8", JSON),
        ("application/x-npy ; q=1.000", NPY),
        ("application/x-npy;q=2, application/json;q=0.1", JSON),  # no quality: as if it were 0
        ("application/x-npy;q=nan, application/json;q=0.1", JSON),
    ],
)
def test_the_best_quality_wins_then_the_range_that_says_more(accept: str, expected: str) -> None:
    assert negotiate(accept, OFFERED) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "*/*;q=0", "json", "application/json;q=x", ","]
)
def test_nothing_acceptable_names_what_is_offered(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="one of application/json, application/x-npy, app"):
        negotiate(accept, OFFERED)
