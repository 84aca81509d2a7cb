"""Arrays: sliced, and never looped over."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source


class Columns(NamedTuple):
    x: Any
    y: Any


def test_batches_are_views() -> None:
    x = np.zeros((10, 3))
    source = open_source((x, np.arange(10)), DataOptions())
    assert source.in_memory
    assert all(np.shares_memory(b.inputs["0"], x) for b in source.batches(4))
    assert np.shares_memory(source.peek(3).inputs["0"], x)


def test_a_million_rows_take_no_time() -> None:
    x = np.broadcast_to(np.float32(1), (1_000_000, 50))
    source = open_source((x, np.zeros(1_000_000, np.int64)), DataOptions())
    begin = time.perf_counter()
    assert sum(len(b) for b in source.batches(1000)) == 1_000_000
    assert time.perf_counter() - begin < 2, (
        "far less would be needed even on a slow machine; a loop over rows takes more"
    )


@pytest.mark.parametrize(
    ("data", "names", "labels"),
    [
        (np.zeros((4, 2)), ["0"], None),
        ((np.zeros((4, 2)), np.zeros((4, 3))), ["0", "1"], None),
        ((np.zeros((4, 2)), [0, 1, 2, 0]), ["0"], [0, 1, 2, 0]),
        ((np.zeros((4, 2)), None), ["0"], None),
        (((np.zeros((4, 2)), np.zeros((4, 3))), np.arange(4)), ["0", "1"], [0, 1, 2, 3]),
        (({"a": np.zeros((4, 2))}, np.arange(4)), ["a"], [0, 1, 2, 3]),
        ({"a": np.zeros((4, 2)), "y": np.arange(4)}, ["a"], [0, 1, 2, 3]),
        ({"a": {"b": np.zeros((4, 2))}, "y": [True, False, True, True]}, ["a.b"], [1, 0, 1, 1]),
        ({"a": [np.zeros(2)] * 4, "b": [[1, 2]] * 4}, ["a", "b"], None),
        (Columns(np.zeros((4, 2)), np.arange(4)), ["x"], [0, 1, 2, 3]),
        (memoryview(np.zeros((4, 2))).obj, ["0"], None),
    ],
)
def test_structures(data: Any, names: list[str], labels: list[int] | None) -> None:
    batch = open_source(data, DataOptions()).peek(10)
    assert list(batch.inputs) == names
    assert all(len(a) == 4 for a in batch.inputs.values())
    assert (None if batch.labels is None else batch.labels.tolist()) == labels


def test_what_says_it_is_an_array() -> None:
    class Holder:
        def __init__(self, x: np.ndarray) -> None:
            self.__array_interface__ = x.__array_interface__
            self.x = x

    class Maker:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.zeros((4, 2), dtype)

    assert open_source(Holder(np.zeros((4, 2))), DataOptions()).length == 4
    assert open_source(Maker(), DataOptions()).length == 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array(3.0), r"input '0' is a single number of shape \(\), not an array of rows"),
        (np.float32(3), r"input '0' is a single number"),
        (
            np.array([np.zeros(2), np.zeros(3)], dtype=object),
            r"dtype object \(ragged rows, or rows that are no numbers\)",
        ),
        ((np.zeros((4, 2)), np.zeros((3, 2))), r"unequal numbers of rows: 0 4, 1 3"),
        ({"a": np.zeros((4, 2)), "y": np.arange(3)}, r"unequal numbers of rows: a 4, labels 3"),
        ({"a": [np.zeros(2), np.zeros(3)]}, r"a list of 2 rows has rows of the shapes \(2,\), \(3,\) \(ragged rows\)"),
        ({"a": [[1, 2], [3]]}, r"nested lists of unequal lengths \(ragged rows\)"),
        ({"a": np.zeros((4, 2)), "y": np.full((4, 2), 0.5)}, "labels that are no class"),
    ],
)
def test_what_cannot_be_used(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(data, DataOptions())


def test_text_is_for_functions_and_for_models_that_take_it() -> None:
    texts = np.array(["a", "b"])
    with pytest.raises(DataError, match=r"input '0' has the dtype <U1; numbers were expected"):
        open_source(texts, DataOptions(signature=InputSignature(("x",))))
    for signature in (None, InputSignature(("x",), takes_text=True)):
        (batch,) = open_source(texts, DataOptions(signature=signature)).batches(4)
        assert batch.inputs["0"].tolist() == ["a", "b"]


@pytest.mark.parametrize("labels", [[0, 1], [[1, 0], [0, 1]], ["a", "b"]])
def test_rows_and_labels_as_lists(labels: Any) -> None:
    (batch,) = open_source(([[1.0, 2.0], [3.0, 4.0]], labels), DataOptions(signature=InputSignature(("x",)))).batches(4)
    assert batch.inputs["0"].tolist() == [[1, 2], [3, 4]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1]


def test_texts_and_labels_as_lists() -> None:
    (batch,) = open_source((["a", "b", "c"], [0, 1, 0]), DataOptions()).batches(4)
    assert batch.inputs["0"].tolist() == ["a", "b", "c"]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0]


def test_a_required_input_is_missing() -> None:
    with pytest.raises(DataError, match="the model's input 'b' is missing: the data have 'a'"):
        open_source({"a": np.zeros((2, 2))}, DataOptions(signature=InputSignature(("a", "b"))))


def test_empty_arrays_keep_their_shape() -> None:
    source = open_source((np.zeros((0, 3, 2)), np.zeros(0, np.int64)), DataOptions())
    assert source.length == 0
    assert source.peek(4).inputs["0"].shape == (0, 3, 2)
    assert list(source.batches(4)) == []


def test_float64_stays() -> None:
    assert open_source(np.zeros((2, 2)), DataOptions()).peek(1).inputs["0"].dtype == np.float64


def test_a_transform_is_applied_to_each_row() -> None:
    x, z, y = np.arange(8.0).reshape(4, 2), np.ones((4, 2)), np.array(["b", "a", "b", "a"])
    source = open_source((x, z, y), DataOptions(transform=lambda pair: pair[0] + pair[1]))
    assert not source.in_memory
    (batch,) = source.batches(10)
    np.testing.assert_array_equal(batch.inputs["0"], x + z)
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0, 1, 0]
    assert source.class_names == ("a", "b")


def test_an_input_getter_sees_samples() -> None:
    x, y = np.arange(8.0).reshape(4, 2), np.arange(4)
    (batch,) = open_source({"deep": {"x": x}, "y": y}, DataOptions(input_getter=lambda s: s["deep"]["x"])).batches(10)
    np.testing.assert_array_equal(batch.inputs["0"], x)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2, 3]


def test_fingerprint_sees_labels_ids_names_and_dtypes() -> None:
    x, y = np.zeros((5, 2), np.float32), np.arange(5)
    variants = [
        open_source(x, DataOptions()),
        open_source(x.astype(np.float64), DataOptions()),
        open_source(x[:, :1], DataOptions()),
        open_source({"a": x}, DataOptions()),
        open_source((x, y), DataOptions()),
        open_source((x, y[::-1]), DataOptions()),
        open_source((x, ["a", "b", "c", "d", "e"]), DataOptions()),
        open_source(x, DataOptions(ids=list("abcde"))),
        open_source(x, DataOptions(ids=list("abcdf"))),
        open_source(x[:0], DataOptions()),
        open_source(x[:0, :1], DataOptions()),
    ]
    assert len({s.fingerprint() for s in variants}) == len(variants)


def test_masked_values_are_refused() -> None:
    masked = np.ma.masked_array(np.ones((3, 2)), mask=[[0, 1], [0, 0], [0, 0]])
    with pytest.raises(DataError, match=r"masked array has masked values.*\.filled\(np\.nan\)"):
        open_source(masked, DataOptions())
    (batch,) = open_source(np.ma.masked_array(np.ones((3, 2)), mask=False), DataOptions()).batches(4)
    assert batch.inputs["0"].tolist() == [[1, 1]] * 3
