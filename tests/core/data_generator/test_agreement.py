"""Whether a dataset is the one that distributions are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.data_generator.agreement import Agreement
from fo_onnx.data_generator.pairing import FirstOrderDataset
from fo_onnx.errors import DataError

PROBS = np.full((3, 3), 1 / 3, np.float32)
NAMED = {"model": {"class_names": ["cat", "dog", "emu"]}}
NUMBERED = {"model": {"class_names": ["5", "7", "-9"]}}


def agreement(meta=None, dataset=None, **options) -> Agreement:
    return Agreement(fo.Distributions(PROBS, meta=meta, **{"labels": [0, 1, 2], **options}), dataset or [], 3)


@pytest.mark.parametrize(
    ("meta", "dataset", "right"),
    [
        (None, None, [0, 1, 2]),
        (None, None, np.array([0, 1, 2], np.uint8)),
        (None, None, [np.int64(0), 1.0, np.array([2])]),
        (None, None, [np.array([1, 0, 0]), np.array([0, 1.0, 0]), 2]),
        (NAMED, None, ["cat", "dog", np.str_("emu")]),
        (NAMED, None, [0, "dog", 2]),
        # The labels of models of scikit-learn are the numbers that classes are called by.
        (NUMBERED, None, [5, 7, -9]),
        (NUMBERED, None, np.array([5, 7, -9])),
        # Classes that the dataset counts in another order than the model.
        (NAMED, SimpleNamespace(classes=["dog", "emu", "cat"]), [2, 0, 1]),
    ],
)
def test_labels_of_every_kind_agree(meta, dataset, right) -> None:
    checked = agreement(meta, dataset)
    checked.require_all(right)
    for index, label in enumerate(right):
        checked.require(index, label)
    wrong = list(right)
    wrong[0], wrong[1] = wrong[1], wrong[0]
    with pytest.raises(
        fo.DataError, match="labels of 2 of 3 samples contradict .* first: the sample at index 0"
    ) as caught:
        checked.require_all(wrong)
    assert caught.value.position == 0
    with pytest.raises(fo.DataError, match="the sample at index 1 has the label"):
        checked.require(1, wrong[1])


@pytest.mark.parametrize(
    "label",
    [np.array([0.2, 0.3, 0.5]), 0.5, float("nan"), None, object(), {"a": 1}, "cat", np.zeros((2, 2)), np.zeros(0)],
)
def test_what_is_no_class_is_not_compared(label) -> None:
    agreement().require(1, label)


def test_without_labels_and_with_text_ids_only_numbers_of_rows_are_compared() -> None:
    for options in ({"labels": None}, {"ids": ["a", "b", "c"]}):
        checked = agreement(**options)
        checked.require_all([2, 2, 2])
        checked.require(0, 2)
        assert checked.numbers() is None


def test_labels_follow_ids_and_not_positions() -> None:
    agreement(ids=[2, 0, 1]).require_all([1, 2, 0])
    with pytest.raises(fo.DataError, match="of 3 of 3 samples"):
        agreement(ids=[2, 0, 1]).require_all([0, 1, 2])


def test_numbers_that_a_label_may_be() -> None:
    assert agreement().numbers().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert agreement({"model": {"class_names": ["5", "7", "x"]}}).numbers().tolist() == [[0, 5], [1, 7], [2, 2]]
    assert agreement(NAMED, SimpleNamespace(classes=["dog", "emu", "cat"])).numbers() is None


def test_a_hostile_name_of_a_class_is_escaped() -> None:
    with pytest.raises(fo.DataError) as caught:
        agreement({"model": {"class_names": ["a\x1b[2J\n", "b", "c"]}}).require(0, 1)
    assert "\\x1b[2J\\n" in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": np.zeros(3), "b": np.zeros(2)}, "a 3, b 2"),
        ({"a": {"b": np.zeros(2)}, "a.b": np.zeros(3)}, "a.b 2, a.b 3"),
    ],
)
def test_arrays_of_unequal_length_are_named(arrays: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"unequal numbers of rows: {said}"):
        FirstOrderDataset(arrays, {})
