"""What a caller may give as distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.data_generator.tensors import NumpyTensors, to_distributions
from fo_onnx.errors import DataError, OutputError

PROBS = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], np.float32)


def test_forms(tmp_path: Path) -> None:
    dists = fo.Distributions(PROBS)
    path = fo.save(dists, tmp_path / "rows.parquet")
    lists, arrays = dists.to_dict(), dict(enumerate(PROBS))
    for value in (dists, lists, arrays, {i: tuple(row) for i, row in lists.items()}, path, str(path)):
        assert np.array_equal(to_distributions(value, NumpyTensors()).probs, PROBS)


def test_ids_of_text_and_of_other_numbers() -> None:
    for ids in (["a", "b", "c"], [5, 3, 9]):
        rows = dict(zip(ids, PROBS, strict=True))
        assert list(to_distributions(rows, NumpyTensors())) == ids


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[0.5, 0.5]], "is a list; a dict from position to row, a Distributions or a file's path was expected"),
        ({}, "an empty dict"),
        ({0: [0.5, 0.5], 1: [1.0]}, r"the row of 1 has the shape \(1,\) where the first has \(2,\)"),
        ({0: 0.5}, r"the row of 0 has the shape \(\)"),
        ({0: [0.5, 0.5], 1: "x"}, "the row of 1 is no array of numbers"),
        ({0: [[0.5], 0.5]}, "the row of 0 is no array of numbers"),
    ],
)
def test_what_is_none(value: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        to_distributions(value, NumpyTensors())


def test_a_row_that_is_no_distribution_is_refused() -> None:
    with pytest.raises(OutputError, match=r"no distribution.*ids 1"):
        to_distributions({0: [0.5, 0.5], 1: [3.0, 0.5]}, NumpyTensors())
