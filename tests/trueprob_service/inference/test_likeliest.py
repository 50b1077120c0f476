import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trueprob_service.inference.answer import likeliest

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.sampled_from([0.0, 1e-45, 0.125, 0.25, 0.5, 1.0]),
)


@pytest.mark.slow
@given(matrices, st.data())
def test_the_same_as_sorting_every_row_in_python(
    probabilities: np.ndarray, data: st.DataObject
) -> None:
    m = data.draw(st.integers(1, probabilities.shape[1]))
    # Any of the largest may be the prediction: rounding can make several equal.
    prediction = np.array(
        [data.draw(st.sampled_from(np.flatnonzero(row == row.max()))) for row in probabilities]
    )
    indices, values = likeliest(probabilities, prediction, m)
    assert indices.flags.c_contiguous
    assert values.flags.c_contiguous
    for row, predicted, found, found_values in zip(
        probabilities, prediction, indices, values, strict=True
    ):
        order = sorted(range(len(row)), key=lambda j: (j != predicted, -row[j], j))[:m]
        assert found.tolist() == order
        np.testing.assert_array_equal(found_values, row[order])
