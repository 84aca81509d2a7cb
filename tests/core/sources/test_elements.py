"""What is an input, what a label; what a sample, what a batch."""

from __future__ import annotations

import logging
from collections import UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources.batching import ReadRows, Unreadable
from fo_onnx.sources.elements import ElementParser
from fo_onnx.sources.nested import flatten, leaves, map_leaves

X = np.arange(4.0, dtype=np.float32)
Z = np.arange(6.0).reshape(2, 3)


class Point(NamedTuple):
    left: Any
    right: Any


@dataclass
class Record:
    image: Any
    label: Any


def take(
    element: Any, signature: InputSignature | None = None, batched: bool = False, **options: Any
) -> tuple[dict, Any]:
    parser = ElementParser(DataOptions(signature=signature, **options))
    (item,) = parser.parse_element(element, batched)
    if isinstance(item, Unreadable):
        raise item.error
    assert isinstance(item, ReadRows)
    if batched:
        return item.inputs, item.labels
    return {k: a[0] for k, a in item.inputs.items()}, None if item.labels is None else item.labels[0]


def shapes(inputs: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {k: a.shape for k, a in inputs.items()}


class TestFlatten:
    @pytest.mark.parametrize(
        ("value", "names"),
        [
            (X, ["0"]),
            ([1, 2, 3], ["0"]),
            ([[1, 2], [3, 4]], ["0"]),
            (1.5, ["0"]),
            ((X, Z), ["0", "1"]),
            ([X, Z], ["0", "1"]),
            ({"a": X, "b": Z}, ["a", "b"]),
            ({"image": {"left": X, "right": Z}, "n": 3}, ["image.left", "image.right", "n"]),
            ((X, {"a": Z, "b": (X, X)}), ["0", "1.a", "1.b.0", "1.b.1"]),
            (Point(X, Z), ["left", "right"]),
            (Record(X, 3), ["image", "label"]),
            (UserDict(a=X), ["a"]),
            ({1: X}, ["1"]),
            ({"a": X, "b": None}, ["a"]),
        ],
    )
    def test_names(self, value: Any, names: list[str]) -> None:
        assert list(flatten(value)) == names

    def test_two_of_one_name(self) -> None:
        with pytest.raises(DataError, match=r"two inputs are called 'a\.b'; rename one, or choose with input_getter="):
            flatten({"a.b": X, "a": {"b": X}})

    def test_nothing_in_it(self) -> None:
        with pytest.raises(DataError, match=r"an element of the data \(dict\) holds no input"):
            flatten({"a": None})

    def test_ragged_lists(self) -> None:
        with pytest.raises(
            DataError, match=r"nested lists of unequal lengths \(ragged rows\) cannot be made one array"
        ):
            flatten([[1, 2], [3]])

    @pytest.mark.parametrize("value", ["text", np.array(["a"]), np.array("2020", dtype="M8[D]"), b"x"])
    def test_dtypes_that_hold_no_numbers(self, value: Any) -> None:
        with pytest.raises(DataError, match=r"input 'a' has the dtype .*; numbers were expected\. Leave it out"):
            flatten({"a": value})

    @pytest.mark.parametrize(
        "value", [np.array([["b", "aä"]]), np.array([["b", "aä"]], object), np.array([["b", "aä".encode()]], object)]
    )
    def test_text_for_a_model_that_takes_it(self, value: Any) -> None:
        text = flatten({"a": value, "b": X}, takes_text=True)["a"]
        assert (text.dtype, text.tolist()) == (np.dtype(object), [["b", "aä"]])
        with pytest.raises(DataError, match="numbers were expected"):
            flatten({"a": np.array([X, "b"], object)}, takes_text=True)

    def test_numbers_beside_text_stay_numbers(self) -> None:
        rows = [["red", 1, True, None, float("nan")]]
        values = flatten({"a": rows}, takes_text=True)["a"][0]
        assert [type(v) for v in values] == [str, int, bool, type(None), float]
        assert values[:4].tolist() == rows[0][:4]
        with pytest.raises(DataError, match="numbers were expected"):
            flatten({"a": rows})

    def test_objects(self) -> None:
        with pytest.raises(DataError, match=r"has the dtype object \(ragged rows, or rows that are no numbers\)"):
            flatten(np.array([X, Z], dtype=object))

    def test_no_copy(self) -> None:
        assert np.shares_memory(flatten({"a": X})["a"], X)

    def test_bfloat16_becomes_float32(self) -> None:
        ml_dtypes = pytest.importorskip("ml_dtypes")
        assert flatten(X.astype(ml_dtypes.bfloat16))["0"].dtype == np.float32

    @given(
        st.recursive(
            st.floats(allow_nan=False),
            lambda inner: (
                st.dictionaries(st.text("abc", min_size=1), inner, min_size=1, max_size=3)
                | st.lists(inner, min_size=1, max_size=3).map(tuple)
            ),
        )
    )
    def test_every_leaf_is_there_in_order(self, value: Any) -> None:
        assert [float(a) for a in flatten(value).values()] == list(leaves(value))
        doubled = map_leaves(value, lambda leaf: leaf / 2)
        assert list(leaves(doubled)) == [leaf / 2 for leaf in leaves(value)]


class TestWithoutSignature:
    @pytest.mark.parametrize("label", [3, True, np.int64(3), np.array(3)])
    def test_an_integer_at_the_end_is_the_label(self, label: Any) -> None:
        inputs, found = take((X, label))
        assert list(inputs) == ["0"]
        assert found == label

    @pytest.mark.parametrize("last", [Z, np.array([3]), 0.5, [1, 2]])
    def test_anything_else_is_an_input(self, last: Any) -> None:
        inputs, label = take((X, last))
        assert list(inputs) == ["0", "1"]
        assert label is None

    def test_none_is_no_label(self) -> None:
        inputs, label = take((X, None))
        assert list(inputs) == ["0"]
        assert label is None

    def test_several_inputs_in_a_pair(self) -> None:
        assert list(take(((X, Z), 3))[0]) == ["0", "1"]
        assert list(take(({"a": X, "b": Z}, 3))[0]) == ["a", "b"]
        assert take(((X, Z), 3))[1] == 3
        assert list(take((X, Z, 3))[0]) == ["0", "1"]

    def test_a_tuple_of_one(self) -> None:
        assert list(take((X,))[0]) == ["0"]
        assert take(([{"a": X, "label": 2}],))[1] == 2

    @pytest.mark.parametrize("key", ["label", "labels", "y", "target", "targets"])
    def test_label_keys(self, key: str) -> None:
        inputs, label = take({"a": X, key: 2, "b": Z})
        assert list(inputs) == ["a", "b"]
        assert label == 2

    def test_label_of_a_dataclass_and_of_a_mapping(self) -> None:
        assert take(Record(X, 2))[1] == 2
        assert take(UserDict(a=X, y=2))[1] == 2

    def test_a_lone_key_is_the_input(self) -> None:
        assert list(take({"y": X})[0]) == ["y"]

    @pytest.mark.parametrize(
        "text", ["good", b"good", ["a", "b"], np.array("good"), np.array(["a", "b"], dtype=object)]
    )
    def test_text_beside_numbers_is_left_out(self, text: Any, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "fo_onnx.sources"):
            inputs, label = take({"text": text, "ids": X, "label": 3})
        assert (list(inputs), label) == (["ids"], 3)
        assert "not among the model's inputs, and left out: text" in caplog.text

    def test_text_alone_is_the_input_of_a_function(self) -> None:
        inputs, _ = take({"text": "good"})
        assert inputs["text"] == "good"

    def test_text_alone_is_no_input_of_a_model_of_numbers(self) -> None:
        with pytest.raises(DataError, match="input 'text' has the dtype <U4; numbers were expected"):
            take({"text": "good"}, signature=InputSignature(("x",)))

    def test_a_batch_has_a_row_of_labels(self) -> None:
        inputs, labels = take((Z, np.array([1, 0])), batched=True)
        assert shapes(inputs) == {"0": (2, 3)}
        assert labels.tolist() == [1, 0]
        assert list(take((Z, np.array([1, 0, 2])), batched=False)[0]) == ["0", "1"]

    def test_a_batch_of_unequal_lengths(self) -> None:
        with pytest.raises(
            DataError, match=r"unequal numbers of rows: 0 2, 1 4\. One row per sample was expected in each"
        ):
            take((Z, X), batched=True)


class TestWithSignature:
    ONE = InputSignature(("x",), (), (2,))
    TWO = InputSignature(("a", "b"))
    BERT = InputSignature(("input_ids",), ("attention_mask", "labels"))

    def test_as_many_as_required_are_inputs(self) -> None:
        inputs, label = take((X, 3), self.TWO)
        assert list(inputs) == ["0", "1"]
        assert label is None

    def test_one_more_is_the_label_whatever_it_looks_like(self) -> None:
        inputs, label = take((X, 3.0), self.ONE)
        assert list(inputs) == ["0"]
        assert label == 3.0
        assert take((X, Z, 2), self.TWO)[1] == 2

    def test_too_many(self) -> None:
        with pytest.raises(
            DataError,
            match=r"a tuple of 4 parts, but the model takes 2 inputs \(a, b\): at most these and a label were "
            r"expected\. Put a row of features into a list or an array",
        ):
            take((X, X, X, 2), self.TWO)

    def test_optional_inputs_or_a_label(self) -> None:
        assert take((X, 3), self.BERT)[1] == 3
        ids, mask = X.astype(np.int64), np.ones_like(X)
        assert list(take((ids, mask), self.BERT)[0]) == ["0", "1"]
        assert take((ids, mask, mask, 3), self.BERT)[1] == 3

    @pytest.mark.parametrize(
        "last", [np.float32(0.5), np.eye(3)[1], np.eye(3, dtype=np.int64)[1], np.ones(1, np.float32), Z]
    )
    def test_what_may_be_an_optional_input_or_a_label_is_refused(self, last: Any) -> None:
        with pytest.raises(
            DataError, match="may be the model's optional input 'attention_mask' or a label. Give a dict"
        ):
            take((X, last), self.BERT)
        options = DataOptions(signature=self.BERT, labels=False)
        item = ElementParser(options).parse_sample((X, last))
        assert list(item.inputs) == ["0"]
        assert item.labels is None

    def test_pairs_with_all_inputs_first(self) -> None:
        inputs, label = take(((X, Z), 3), self.TWO)
        assert (list(inputs), label) == (["0", "1"], 3)
        inputs, label = take(({"a": X, "b": Z}, 1.0), self.TWO)
        assert (list(inputs), label) == (["a", "b"], 1.0)

    def test_a_dict_and_an_array_are_two_inputs(self) -> None:
        assert list(take(({"c": X}, Z), self.TWO)[0]) == ["0.c", "1"]

    def test_keys_that_the_model_does_not_name_are_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        element = {"a": X, "b": Z, "file": "x.png", "label": 3}
        with caplog.at_level(logging.INFO, "fo_onnx.sources"):
            inputs, label = take(element, self.TWO)
        assert (list(inputs), label) == (["a", "b"], 3)
        assert "not among the model's inputs, and left out: file" in caplog.text

    def test_optional_keys_are_kept(self) -> None:
        element = {"input_ids": X, "attention_mask": X, "labels": 1, "idx": 7}
        inputs, label = take(element, self.BERT)
        assert (list(inputs), label) == (["input_ids", "attention_mask"], 1)

    def test_a_required_key_is_no_label(self) -> None:
        inputs, label = take({"x": X, "y": Z}, InputSignature(("x", "y")))
        assert (list(inputs), label) == (["x", "y"], None)

    def test_missing(self) -> None:
        with pytest.raises(DataError, match=r"the model's input 'b' is missing: the data have 'a', 'c'\. Rename them"):
            take({"a": X, "c": Z}, self.TWO)

    def test_a_lone_dict_argument_keeps_its_keys(self) -> None:
        assert list(take({"u": X, "v": Z, "text": "good"}, InputSignature(("d",)))[0]) == ["u", "v"]

    def test_nested_names(self) -> None:
        signature = InputSignature(("image.left", "image.right"))
        element = {"image": {"left": X, "right": X}, "other": Z}
        assert list(take(element, signature)[0]) == ["image.left", "image.right"]


class TestSampleOrBatch:
    def is_batch(self, element: Any, signature: InputSignature | None = None, **options: Any) -> bool:
        return ElementParser(DataOptions(signature=signature, **options)).is_batch(element)

    def test_by_ranks(self) -> None:
        signature = InputSignature(("x",), (), (3,))
        assert not self.is_batch((Z, 3), signature)
        assert not self.is_batch(Z, signature)
        assert self.is_batch(Z[None], signature)
        assert self.is_batch((Z[None], np.array([3])), signature)
        assert self.is_batch({"x": Z[None], "other": "text"}, signature)

    def test_by_ranks_neither(self) -> None:
        with pytest.raises(
            DataError,
            match=r"the first element has the shape \(4,\), which is neither a batch nor a sample of the model's input "
            r"\(x\): a batch has 3 axes, a sample one less",
        ):
            self.is_batch(X, InputSignature(("x",), (), (3,)))

    def test_by_ranks_of_what_a_transform_gives(self) -> None:
        signature = InputSignature(("x",), (), (2,))

        def ravel(z: np.ndarray) -> np.ndarray:
            assert z.ndim == 2
            return z.ravel()

        assert not self.is_batch(Z, signature, transform=ravel)
        assert self.is_batch(Z[None], signature, transform=ravel)

    def test_by_label(self) -> None:
        assert not self.is_batch((Z, 3))
        assert self.is_batch((Z, np.array([1, 0])))
        assert self.is_batch({"a": X, "label": np.arange(4.0)})

    def test_by_rank(self) -> None:
        assert not self.is_batch(1.0)
        assert not self.is_batch(X)
        assert self.is_batch(Z)


class TestFunctions:
    def test_input_getter(self) -> None:
        inputs, label = take({"deep": {"x": X}, "name": "text", "label": 2}, input_getter=lambda e: e["deep"]["x"])
        assert (list(inputs), label) == (["0"], 2)
        inputs, label = take((X, Z, "name", 2), input_getter=lambda e: {"a": e[0], "b": e[1]})
        assert (list(inputs), label) == (["a", "b"], 2)

    def test_transform_sees_the_inputs_without_the_label(self) -> None:
        inputs, label = take((X, 2), transform=lambda x: x * 2)
        np.testing.assert_array_equal(inputs["0"], X * 2)
        assert label == 2
        assert list(take(((X, Z), 2), transform=lambda pair: {"sum": pair[0].sum() + pair[1].sum()})[0]) == ["sum"]
        assert list(take({"a": X, "t": "text", "y": 2}, transform=lambda d: d["a"])[0]) == ["0"]

    def test_transform_of_a_batch_sees_rows(self) -> None:
        parser = ElementParser(DataOptions(transform=lambda z: z.sum(keepdims=True)))
        element = (Z, np.array([1, 0]))
        rows = list(parser.parse_element(element, batched=True))
        assert [r.inputs["0"].tolist() for r in rows if isinstance(r, ReadRows)] == [[[3.0]], [[12.0]]]
        assert [r.labels.tolist() for r in rows if isinstance(r, ReadRows)] == [[1], [0]]

    def test_two_parts_of_one_name_have_equal_lengths(self) -> None:
        options = DataOptions(transform=lambda parts: parts["a"]["b"])
        element = {"a": {"b": np.zeros((3, 2))}, "a.b": np.zeros((2, 2))}
        (row,) = ElementParser(options).parse_element(element, batched=True)
        assert isinstance(row, Unreadable)
        assert "unequal numbers of rows: a.b 3, a.b 2" in str(row.error)
        with pytest.raises(DataError, match=r"unequal numbers of rows: a\.b 3, a\.b 2"):
            open_source(element, options)
