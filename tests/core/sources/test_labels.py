"""Labels from everywhere, and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import DataError, DataNotFoundError
from fo_onnx.sources import open_source
from fo_onnx.sources.labels import read_labels, to_classes


@pytest.mark.parametrize(
    "values",
    [
        [0, 2, 1],
        (0, 2, 1),
        np.array([0, 2, 1], dtype=np.uint8),
        np.array([0.0, 2.0, 1.0], dtype=np.float16),
        np.array([[0], [2], [1]]),
        np.array([0, 2, 1], dtype=object),
    ],
)
def test_classes(values: Any) -> None:
    labels = read_labels(values)
    assert labels.values.dtype == np.int64
    assert labels.values.tolist() == [0, 2, 1]
    assert labels.class_names is None


def test_bools() -> None:
    assert read_labels([True, False]).values.tolist() == [1, 0]


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert read_labels(torch.tensor([0.0, 2.0], requires_grad=True)).values.tolist() == [0, 2]


@given(st.lists(st.sampled_from(["cat", "dog", "ant", "äffchen", ""]), min_size=1))
def test_names_are_numbered_in_order(names: list[str]) -> None:
    labels = read_labels(names)
    assert labels.class_names == tuple(sorted(set(names)))
    assert [labels.class_names[c] for c in labels.values] == names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.full((3, 3), 1 / 3),
            r"labels that are no class: an array of shape \(3, 3\) was found, .*labels=rows.argmax\(axis=1\)",
        ),
        ([0, 0.5, 1], r"labels that are no class: row 1 has the label 0\.5; an integer or a name was expected"),
        ([0, 1, float("nan")], r"row 2 has the label nan"),
        ([0, float("inf")], r"row 1 has the label inf"),
        ([0, None], r"row 1 has the label None; .* leave the labels out with labels=False"),
        (["a", 1], r"row 1 has the label 1; .* The labels before it are text"),
        ([1, "a"], r"row 1 has the label 'a'"),
        (np.array([2**63], dtype=np.uint64), r"row 0 has the label 9223372036854775808"),
        ([[1], [2, 3]], r"labels= cannot be made one array"),
        (3, r"labels= is a int; one integer per row or a file's path was expected"),
    ],
)
def test_what_is_no_class(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(values)


def test_the_position_is_that_of_the_row() -> None:
    with pytest.raises(DataError, match=r"row 7 has the label 0\.5") as caught:
        to_classes(np.array([0, 0.5]), np.array([5, 7]))
    assert caught.value.position == 7


class TestFiles:
    def write(self, path: Path, text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        return path

    @pytest.mark.parametrize(
        ("name", "text", "values"),
        [
            ("y.txt", "0\n2\n1\n", [0, 2, 1]),
            ("y.txt", "0\r\n2\r\n1", [0, 2, 1]),
            ("y.csv", "0\n2\n1\n", [0, 2, 1]),
            ("y.csv", "label\n0\n2\n1\n", [0, 2, 1]),
            ("y.csv", '"my class"\n0\n2\n1\n', [0, 2, 1]),
            ("y.csv", "\ufefflabel\n0\n2\n1\n", [0, 2, 1]),
            ("y.json", "[0, 2, 1]", [0, 2, 1]),
            ("y.json", '["a", "c", "b"]', [0, 2, 1]),
            ("y.txt", "a\nc\nb", [0, 2, 1]),
            ("y.csv", "label\na\nc\nb", [0, 2, 1]),
            ("y.csv", "a\nc\nb", [0, 2, 1]),
        ],
    )
    def test_read(self, tmp_path: Path, name: str, text: str, values: list[int]) -> None:
        labels = read_labels(self.write(tmp_path / name, text))
        assert labels.values.tolist() == values
        assert labels.class_names == (("a", "b", "c") if "b" in text.replace("label", "") else None)

    def test_a_quoted_name_of_two_lines_stays_what_it_is(self, tmp_path: Path) -> None:
        labels = read_labels(self.write(tmp_path / "y.csv", '"a\nb"\nc\nab'))
        assert (labels.values.tolist(), labels.class_names) == ([0, 2, 1], ("a\nb", "ab", "c"))

    def test_npy(self, tmp_path: Path) -> None:
        np.save(tmp_path / "y.npy", [0, 2])
        assert read_labels(str(tmp_path / "y.npy")).values.tolist() == [0, 2]

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataNotFoundError, match=r"there is no file of labels at .*y\.txt"):
            read_labels(tmp_path / "y.txt")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("y.xlsx", "", r"labels cannot be read from .*y\.xlsx: \.npy, \.json, \.txt, \.csv were expected"),
            ("y.json", '{"a": 1}', "holds a JSON dict; a list with one label per row was expected"),
            (
                "y.json",
                "[1",
                r"Reading the labels .*y\.json: it is damaged, cut short or of another kind \(JSONDecodeError",
            ),
            ("y.csv", "0,1\n", r"line 1 of .* has 2 columns; one, of labels, was expected"),
            ("y.csv", 'a\n"b\nc\n', r"Reading the labels .*y\.csv: it is damaged, .*\(Error: unexpected end of data\)"),
            ("y.txt", "0\n\n1\n", r"line 2 of .* is empty"),
            ("y.npy", "nothing", r"Reading the labels .*y\.npy: it is damaged"),
            ("y.json", "[0, 0.5]", r"Reading the labels .*y\.json: .*row 1 has the label 0\.5"),
        ],
    )
    def test_broken(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            read_labels(self.write(tmp_path / name, text))

    def test_pickles_are_not_opened(self, tmp_path: Path) -> None:
        np.save(tmp_path / "y.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="an array of Python objects, which only unpickling could read"):
            read_labels(tmp_path / "y.npy")


class TestInStreams:
    @pytest.mark.parametrize("last", ["dog", np.str_("dog"), b"dog", np.array("dog")])
    def test_text_stays_text(self, last: Any) -> None:
        source = open_source([(np.zeros(2), "a cat"), (np.zeros(2), last)], DataOptions())
        (batch,) = source.batches(2)
        assert batch.labels.tolist() == ["a cat", "dog"]  # type: ignore[union-attr]
        assert source.class_names is None

    @pytest.mark.parametrize("names", [("dog", "a cat"), ["dog", "a cat"], np.array(["dog", "a cat"], dtype=object)])
    def test_text_of_a_batch(self, names: Any) -> None:
        (batch,) = open_source(iter([(np.zeros((2, 3)), names)]), DataOptions()).batches(2)
        assert batch.labels.tolist() == ["dog", "a cat"]  # type: ignore[union-attr]

    def test_text_is_left_alone_where_labels_are_given(self) -> None:
        source = open_source([(np.zeros(2), "cat"), (np.zeros(2), "dog")], DataOptions(labels=["cat", "dog"]))
        assert source.class_names == ("cat", "dog")
        assert next(source.batches(2)).labels.tolist() == [0, 1]  # type: ignore[union-attr]

    @pytest.mark.parametrize("make", [list, iter])
    def test_a_fraction_is_named_with_its_row(self, make: Any) -> None:
        rows = [{"x": np.zeros(2), "y": 0.5 if i == 5 else 1.0} for i in range(8)]
        with pytest.raises(DataError, match=r"row 5 has the label 0\.5") as caught:
            list(open_source(make(rows), DataOptions()).batches(4))
        assert caught.value.position == 5

    def test_one_hot_rows(self) -> None:
        rows = [{"x": np.zeros(2), "y": np.eye(3)[i % 3]} for i in range(4)]
        (batch,) = open_source(rows, DataOptions()).batches(4)
        assert batch.labels.tolist() == [0, 1, 2, 0]
        rows[2]["y"] = np.ones(3)
        with pytest.raises(DataError, match="labels that are no class: an array of shape"):
            list(open_source(rows, DataOptions()).batches(4))

    def test_a_row_without_label(self) -> None:
        rows = [(np.zeros(2), 1), (np.zeros(2), None)]
        with pytest.raises(DataError, match=r"row 1 \(id 1\) has no label, while the first row has one"):
            list(open_source(rows, DataOptions()).batches(4))

    def test_labels_in_arrays(self) -> None:
        x = np.zeros((3, 2))
        with pytest.raises(DataError, match=r"row 1 has the label 0\.5"):
            open_source({"x": x, "y": np.array([0, 0.5, 1])}, DataOptions())
        assert open_source((x, np.array(["b", "a", "b"], dtype=object)), DataOptions()).class_names == ("a", "b")
        assert open_source((x, np.array(["b", "a", "b"])), DataOptions()).class_names == ("a", "b")
        assert open_source({"x": x, "y": ["b", "a", "b"]}, DataOptions()).peek(3).labels.tolist() == [1, 0, 1]  # type: ignore[union-attr]


def test_json_of_integers_among_text(tmp_path: Path) -> None:
    path = tmp_path / "y.json"
    path.write_text(json.dumps(["a", 1]))
    with pytest.raises(DataError, match="The labels before it are text"):
        read_labels(path)
