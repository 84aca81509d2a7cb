"""Categories stay with their column on its way to the model."""

from __future__ import annotations

import numpy as np
import pytest

from fo_onnx.contracts.batch import Array, cut_inputs, join_arrays, join_inputs, pad_rows
from fo_onnx.sources.categories import Categories, categories_of, mark_categories

EXPECTED = Categories(("w", "v", "u"), True)


@pytest.mark.parametrize("values", [["u", "vv"], np.array(["u", np.nan], dtype=object), [3, 1], [1.5, np.nan]])
def test_they_stay(values: Array) -> None:
    column = mark_categories(np.asarray(values), EXPECTED.values, ordered=True)
    assert column.tolist() == np.asarray(values).tolist() or np.isnan(column[1])
    longer = mark_categories(np.resize(np.asarray(values), 5), EXPECTED.values, ordered=True)
    for array in (
        column[1:],
        column[[0, 1]],
        column[np.array([True, False])],
        pad_rows(column, 6),
        join_arrays([column, longer]),
        join_arrays([column, longer], column.dtype),
        join_inputs({"c": column}, {"c": longer})["c"],
        *(part["c"] for part in cut_inputs({"c": column}, 1)),
    ):
        assert categories_of(array) == EXPECTED


def test_plain_columns_have_none() -> None:
    assert categories_of(np.array(["u"])) is None
    joined = join_arrays([np.array(["a"]), np.array(["bcd"])], np.dtype("U1"))
    assert joined.tolist() == ["a", "bcd"]
    assert join_arrays([np.array([1]), np.array([0.5])]).dtype == np.float64
