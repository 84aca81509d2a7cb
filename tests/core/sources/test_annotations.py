"""Ids, and how functions are recorded."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources.annotations import RowAnnotations, check_ids, describe_preprocessing, sample_positions


@given(
    st.lists(st.text(), min_size=1, unique=True) | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True)
)
def test_ids_come_back_as_they_are(values: list[Any]) -> None:
    ids = check_ids(values)
    annotations = RowAnnotations(ids, None)
    assert annotations.id_kind == ("str" if isinstance(values[0], str) else "int")
    assert annotations.ids_at(np.arange(len(values))).tolist() == ids.tolist() == values
    assert annotations.id_at(len(values) - 1) == values[-1]


@pytest.mark.parametrize(
    "values", [np.array([3, 1], dtype=np.uint8), (3, 1), range(3, 0, -2), [np.int32(3), np.int16(1)]]
)
def test_kinds_of_integers(values: Any) -> None:
    assert check_ids(values).tolist() == [3, 1]


def test_long_text_takes_no_room_for_all() -> None:
    ids = check_ids(["a", "b" * 10_000])
    assert ids.dtype == object


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 1], r"ids= holds 1 twice, at positions 0 and 2; each id must be unique"),
        (["a", "a"], r"ids= holds 'a' twice"),
        ([1, "a"], r"ids= mixes integers and text: 1 at position 0, 'a' at position 1"),
        (["a", 1], r"ids= mixes integers and text: 'a' at position 0, 1 at position 1"),
        ([1.0, 2.0], r"ids= holds 1\.0 at position 0; 64-bit integers or text were expected"),
        ([True], "ids= holds True"),
        ([2**63], "ids= holds 9223372036854775808"),
        ("abc", "ids= is a str; a sequence of integers or of text was expected"),
        (7, "ids= is a int"),
    ],
)
def test_what_is_no_id(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_ids(values)


def test_length_with_a_limit() -> None:
    x = np.zeros((10, 2))
    for n in (10, 4):
        assert open_source(x, DataOptions(ids=list(range(n)), limit=4)).length == 4
    with pytest.raises(DataError, match="ids= has 5 entries, but the data have 10 rows"):
        open_source(x, DataOptions(ids=list(range(5)), limit=4))


class Scaler:
    def __call__(self, x: Any) -> Any:
        return x


def test_functions_by_name() -> None:
    options = DataOptions(transform=Scaler(), input_getter=functools.partial(check_ids, what="x"))
    found = describe_preprocessing(options)
    assert found["transform"].endswith(".Scaler")
    assert found["input_getter"] == "partial(fo_onnx.sources.annotations.check_ids)"
    assert describe_preprocessing(DataOptions(transform=np.sqrt))["transform"].endswith("sqrt")
    assert describe_preprocessing(DataOptions()) == {}
    assert open_source(np.zeros((2, 2)), DataOptions(transform=Scaler())).preprocessing == {
        "transform": found["transform"]
    }


@given(st.integers(0, 500))
def test_sample_positions(n: int) -> None:
    positions = sample_positions(n)
    assert len(positions) == min(n, 16)
    assert list(positions) == sorted(set(positions))
    assert not n or (positions[0], positions[-1]) == (0, n - 1)
