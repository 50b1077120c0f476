"""Buckets do not depend on how wide the numbers are that are counted."""

import numpy as np
import pytest

from trueprob_service.metrics.row_meters import RowHistogram


@pytest.mark.parametrize("bound", [0.1, 0.2, 0.066667, 1.0, 24.0])
def test_a_float32_falls_where_the_same_number_as_float64_does(bound: float) -> None:
    near = np.float32(bound)
    values = np.array([np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(99))])
    narrow, wide = RowHistogram([bound]), RowHistogram([bound])
    narrow.add(values)
    wide.add(values.astype(np.float64))
    assert narrow.buckets() == wide.buckets()
