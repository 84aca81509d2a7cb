"""The dict of rows: a dict in every respect, whose rows are made when they are asked for."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fo_onnx as fo
from fo_onnx.data_generator.rows import RowDict, distributions_of
from fo_onnx.data_generator.tensors import NumpyTensors
from fo_onnx.errors import DataError, OutputError

PROBS = np.array([[0.2, 0.8], [0.5, 0.5], [1.0, 0.0]], np.float32)


class Counting(NumpyTensors):
    """Counts the rows that are made."""

    def __init__(self) -> None:
        self.made = 0

    def rows(self, array: NDArray[Any]) -> list[Any]:
        self.made += len(array)
        return super().rows(array)


def rows(**options: Any) -> RowDict:
    return RowDict(fo.Distributions(PROBS, **options), Counting())


def plain() -> dict[int, NDArray[np.float32]]:
    return dict(enumerate(PROBS))


def same(found: Any, wanted: Any) -> bool:
    return list(found) == list(wanted) and all(np.array_equal(found[k], wanted[k]) for k in wanted)


def test_rows_are_made_when_they_are_asked_for_and_once() -> None:
    found = rows()
    assert isinstance(found, dict)
    assert len(found) == 3
    assert list(found) == list(found.keys()) == [0, 1, 2]
    assert 2 in found
    assert 3 not in found
    assert bool(found)
    assert found._tensors.made == 0
    assert found[1] is found[1]
    assert found._tensors.made == 3
    with pytest.raises(KeyError):
        found[3]


@pytest.mark.parametrize(
    "taken",
    [
        dict,
        lambda d: {**d},
        lambda d: dict(d.items()),
        lambda d: dict(zip(d.keys(), d.values(), strict=True)),
        copy.copy,
        copy.deepcopy,
        lambda d: d.copy(),
        lambda d: pickle.loads(pickle.dumps(d)),
        lambda d: d | {},
        lambda d: {} | d,
        lambda d: {k: d.get(k) for k in d},
        lambda d: dict(reversed(list(reversed(list(d.items()))))),
        lambda d: {k: d.setdefault(k) for k in list(d)},
        lambda d: dict([d.popitem() for _ in range(3)][::-1]),
        lambda d: {k: d.pop(k) for k in list(d)},
    ],
)
def test_however_rows_are_taken_they_are_there(taken: Any) -> None:
    assert same(taken(rows()), plain())


def test_an_update_of_another_dict_takes_rows() -> None:
    other: dict[Any, Any] = {7: None}
    other.update(rows())
    assert same({k: other[k] for k in range(3)}, plain())


def test_what_is_not_there() -> None:
    found = rows()
    assert found.get(9) is None
    assert found.get(9, "none") == "none"
    assert found.pop(9, "none") == "none"
    with pytest.raises(KeyError):
        found.pop(9)
    empty = RowDict(fo.Distributions(np.empty((0, 2), np.float32)), NumpyTensors())
    assert not empty
    with pytest.raises(KeyError):
        empty.popitem()


def test_equality_looks_at_every_number() -> None:
    assert rows() == plain()
    assert plain() == rows()
    assert rows() == rows()
    other = plain()
    other[2] = other[2] + np.float32(0.25)
    assert rows() != other
    assert rows() != {0: PROBS[0]}
    assert rows() != 3


def test_it_is_changed_like_a_dict() -> None:
    found = rows()
    found[0] = np.array([0.9, 0.1], np.float32)
    del found[1]
    found[7] = np.array([0.25, 0.75], np.float32)
    assert list(found) == [0, 2, 7]
    assert found.distributions()[0][0] == np.float32(0.9)
    assert list(found.distributions()) == [0, 2, 7]


def test_unchanged_it_gives_what_it_was_made_from() -> None:
    found = rows(labels=[1, 0, 0], meta={"user": {"a": 1}})
    assert found.distributions() is found.source
    assert found[1] is not None
    assert found.distributions() is found.source
    found[1][0], found[1][1] = 0.25, 0.75
    changed = found.distributions()
    assert changed[1].tolist() == [0.25, 0.75]
    assert found.source[1].tolist() == [0.5, 0.5]


def test_a_row_that_is_made_no_distribution_is_refused() -> None:
    found = rows()
    found[1][0] = 3.0
    with pytest.raises(OutputError, match=r"no distribution.*ids 1"):
        found.distributions()


def test_ids_of_text_and_of_other_numbers() -> None:
    found = rows(ids=["a", "b", "c"])
    assert list(found) == ["a", "b", "c"]
    assert found["b"].tolist() == [0.5, 0.5]
    assert list(rows(ids=[5, 3, 9])) == [5, 3, 9]


def test_no_json_without_rows() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(rows())
    assert json.loads(json.dumps({k: v.tolist() for k, v in rows().items()}))["1"] == [0.5, 0.5]


def test_many_are_made_some_at_a_time() -> None:
    many = RowDict(fo.Distributions(np.repeat(PROBS, 1000, axis=0)), Counting())
    del many[1200]
    many[1201] = own = PROBS[0].copy()
    assert many[1300].tolist() == PROBS[1].tolist()
    assert many._tensors.made == 256
    assert 1200 not in many
    assert many[1201] is own
    assert len(list(many.values())) == 2999
    assert many._tensors.made == 3000
    assert many[2999].tolist() == PROBS[2].tolist()


def test_its_text_is_short() -> None:
    assert repr(rows()) == repr(plain())
    many = RowDict(fo.Distributions(np.repeat(PROBS, 100, axis=0)), NumpyTensors())
    assert "(300 rows × 2 classes)" in repr(many)
    assert len(repr(many)) < 200


class TestDistributionsOf:
    def test_forms(self, tmp_path) -> None:
        dists = fo.Distributions(PROBS)
        fo.save(dists, tmp_path / "rows.parquet")
        for value in (dists, rows(), plain(), {i: r.tolist() for i, r in enumerate(PROBS)}, tmp_path / "rows.parquet",
                      str(tmp_path / "rows.parquet")):  # fmt: skip
            assert np.array_equal(distributions_of(value, NumpyTensors()).probs, PROBS)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ([[0.5, 0.5]], "is a list; a dict from index to row, a Distributions or a file's path was expected"),
            ({}, "an empty dict"),
            ({0: [0.5, 0.5], 1: [1.0]}, r"the row of 1 has the shape \(1,\) where the first has \(2,\)"),
            ({0: 0.5}, r"the row of 0 has the shape \(\)"),
        ],
    )
    def test_what_is_none(self, value: Any, text: str) -> None:
        with pytest.raises(DataError, match=text):
            distributions_of(value, NumpyTensors())


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, float])
def test_a_number_of_another_type_is_the_same_key(kind: Any) -> None:
    many = RowDict(fo.Distributions(np.repeat(PROBS, 22_000, axis=0)), NumpyTensors())
    for key in (200, 65_290) if kind is not np.uint8 else (200,):
        assert np.array_equal(many[kind(key)], many.source[key])
        assert np.array_equal(many.get(kind(key)), many.source[key])
    assert np.array_equal(rows(ids=[5, 3, 9])[kind(3)], PROBS[1])


def test_fromkeys_gives_a_plain_dict() -> None:
    assert RowDict.fromkeys([1, 2], "x") == {1: "x", 2: "x"}
