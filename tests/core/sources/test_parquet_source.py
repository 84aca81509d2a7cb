"""Parquet columns as rows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources import parquet as module


def write(path: Path, columns: Any, rows: int = 1000) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    return path


def opened(path: Path, columns: Any, **options: Any) -> Source:
    return open_source(write(path / "x.parquet", columns), DataOptions(**options))


def whole(source: Source) -> Batch:
    (batch,) = source.batches(1000)
    return batch


def fixed(x: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])


X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize("kind", ["fixed", "variable", "large"])
def test_one_list_column_is_the_input(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    column = fixed(X) if kind == "fixed" else pa.array(X.tolist(), pa.list_(pa.float32()))
    column = column.cast(pa.large_list(pa.float32())) if kind == "large" else column
    with caplog.at_level(logging.INFO, "fo_onnx.sources"):
        source = opened(tmp_path, {"features": column, "weight": [1.0] * 4, "label": [3, 2, 1, 0]})
    batch = whole(source)
    assert list(batch.inputs) == ["0"]
    np.testing.assert_array_equal(batch.inputs["0"], X)
    assert batch.inputs["0"].dtype == np.float32
    assert batch.labels is not None
    assert batch.labels.tolist() == [3, 2, 1, 0]
    assert "that are no inputs, and left out: weight" in caplog.text


def test_lists_of_lists(tmp_path: Path) -> None:
    x = np.arange(24).reshape(2, 3, 4)
    source = opened(tmp_path, {"image": pa.array(x.tolist())})
    np.testing.assert_array_equal(whole(source).inputs["0"], x)


def test_number_columns_side_by_side_in_the_files_order(tmp_path: Path) -> None:
    columns = {
        "z": [1, 2],
        "a": np.array([0.5, 1.5], np.float32),
        "flag": [True, False],
        "text": ["u", "v"],
        "y": [0, 1],
    }
    batch = whole(opened(tmp_path, columns))
    np.testing.assert_array_equal(batch.inputs["0"], [[1, 0.5, 1], [2, 1.5, 0]])


def test_columns_that_the_model_names(tmp_path: Path) -> None:
    columns = {"a": fixed(X), "b": fixed(X + 1), "c": fixed(X), "n": [1, 2, 3, 4], "y": [1, 1, 0, 0]}
    source = opened(tmp_path, columns, signature=InputSignature(("b", "n"), ("c", "d")))
    batch = whole(source)
    assert list(batch.inputs) == ["b", "n", "c"]
    np.testing.assert_array_equal(batch.inputs["b"], X + 1)
    assert batch.inputs["n"].shape == (4,)
    assert source.has_labels


def test_a_named_label_column_can_be_an_input(tmp_path: Path) -> None:
    source = opened(tmp_path, {"x": fixed(X), "y": fixed(X)}, signature=InputSignature(("x", "y")))
    assert list(whole(source).inputs) == ["x", "y"]
    assert not source.has_labels


def test_several_list_columns(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has several list columns \(a, b\), and none is called like the model's inputs \(input\)\. Rename them",
    ):
        opened(tmp_path, {"a": fixed(X), "b": fixed(X)}, signature=InputSignature(("input",)))


def test_no_column_of_numbers(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"has no column of numbers or of lists of numbers, nor one that is called .* inputs \(x\); it has text",
    ):
        opened(tmp_path, {"text": ["a", "b"]}, signature=InputSignature(("x",)))


def test_columns_of_text(tmp_path: Path) -> None:
    """A function gets one or several; a model whose rows are texts gets one, also beside numbers."""
    one, two = {"text": ["a", "b"], "label": [1, 0]}, {"text": ["a", "b"], "title": ["c", "d"]}
    of_texts = InputSignature(("X",), (), (1,), takes_text=True)
    assert whole(opened(tmp_path, one)).inputs["0"].tolist() == ["a", "b"]
    assert whole(opened(tmp_path, two)).inputs["0"].tolist() == [["a", "c"], ["b", "d"]]
    assert whole(opened(tmp_path, {**one, "n": [1, 2]}, signature=of_texts)).inputs["0"].tolist() == ["a", "b"]
    with pytest.raises(DataError, match=r"several columns of text \(text, title\), and .* one text per row"):
        opened(tmp_path, two, signature=of_texts)
    with pytest.raises(DataError, match=r"has no column of text, nor one .* inputs \(X\); it has n \(number\)"):
        opened(tmp_path, {"n": [1, 2]}, signature=of_texts)
    # A matrix of one column stays one.
    of_matrix = InputSignature(("X",), (), (2,), takes_text=True)
    assert whole(opened(tmp_path, one, signature=of_matrix)).inputs["0"].tolist() == [["a"], ["b"]]


class TestIds:
    @pytest.mark.parametrize(("ids", "kind"), [([7, 5, 3, 1], "int"), (["a", "c", "b", "d"], "str")])
    def test_found(self, tmp_path: Path, ids: list[Any], kind: str) -> None:
        source = opened(tmp_path, {"id": ids, "x": fixed(X)})
        assert source.id_kind == kind
        assert whole(source).ids.tolist() == ids

    @pytest.mark.parametrize("ids", [[7, 5, 7, 1], [0.5, 1.5, 2.5, 3.5], ["a", None, "b", "c"]])
    def test_not_usable(self, tmp_path: Path, ids: list[Any]) -> None:
        assert whole(opened(tmp_path, {"id": ids, "x": fixed(X)})).ids.tolist() == [0, 1, 2, 3]

    def test_given_ones_win(self, tmp_path: Path) -> None:
        source = opened(
            tmp_path, {"id": [7, 5, 3, 1], "x": fixed(X), "y": [0, 1, 0, 1]}, ids=list("abcd"), labels=[3] * 4
        )
        batch = whole(source)
        assert batch.ids.tolist() == list("abcd")
        assert batch.labels is not None
        assert batch.labels.tolist() == [3] * 4


class TestLabels:
    def test_text(self, tmp_path: Path) -> None:
        source = opened(tmp_path, {"x": fixed(X), "label": ["b", "a", "b", "c"]})
        assert source.class_names == ("a", "b", "c")
        encoded = opened(tmp_path, {"x": fixed(X), "label": pa.array(["b", "a", "b", "c"]).dictionary_encode()})
        assert whole(encoded).labels.tolist() == whole(source).labels.tolist() == [1, 0, 1, 2]  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ([0.5, 1, 2, 3], r"row 0 has the label 0\.5"),
            ([[1, 0], [0, 1], [1, 0], [1, 0]], "labels that are no class: the column label of .* holds lists"),
            ([1, None, 0, 0], r"row 1 of .* has no value \(null\) in the column label: fill it, or .*labels=False"),
        ],
    )
    def test_no_class(self, tmp_path: Path, values: list[Any], message: str) -> None:
        with pytest.raises(DataError, match=message):
            opened(tmp_path, {"x": fixed(X), "label": values})


FLAWS: dict[str, tuple[list[Any], int, str]] = {
    "a null for a list": ([[1.0, 2.0], None, [3.0, 4.0]], 1, r"has no value \(null\) in the column x of .*x\.parquet"),
    "a null in a list of integers": ([[1, 2], [3, None], [3, 4]], 1, r"has a null within the list in the column x of"),
    "a shorter list": (
        [[1.0, 2.0], [3.0, 4.0], [5.0]],
        2,
        r"has 1 values where the first row has 2 \(ragged rows\), in the column x of",
    ),
    "a ragged list": (
        [[[1.0], [2.0]], [[3.0], [4.0, 5.0]], [[6.0], [7.0]]],
        1,
        "a list within it has 2 values .* has 1",
    ),
    "an empty list": ([[1.0], [], [2.0]], 1, "has 0 values where the first row has 1"),
}


class TestNullsAndRaggedRows:
    @pytest.mark.parametrize("flaw", FLAWS)
    @pytest.mark.parametrize("rows", [2, 1000])
    def test_one_row_fails_alone(self, tmp_path: Path, flaw: str, rows: int) -> None:
        column, position, message = FLAWS[flaw]
        path = write(tmp_path / "x.parquet", {"x": column}, rows)
        with pytest.raises(
            DataError, match=rf"row {position} \(id {position}\): .*{message}.*on_error='skip'"
        ) as caught:
            list(open_source(path, DataOptions()).batches(100))
        assert caught.value.position == position

        (batch,) = open_source(path, DataOptions(on_error="skip")).batches(100)
        assert [b.position for b in batch.bad] == [position]
        good = [row for i, row in enumerate(column) if i != position]
        np.testing.assert_array_equal(batch.inputs["0"], np.array(good))
        assert batch.ids.tolist() == [i for i in range(3) if i != position]

    def test_the_first_row_is_the_measure_unless_it_has_no_value(self, tmp_path: Path) -> None:
        column = [None, [1.0, 2.0], [3.0], [4.0, 5.0], None]
        source = open_source(write(tmp_path / "x.parquet", {"x": column}, 1), DataOptions(on_error="skip"))
        batch = whole(source)
        assert batch.ids.tolist() == [1, 3]
        assert [b.position for b in batch.bad] == [0, 2, 4]
        assert source.fingerprint() == open_source(tmp_path / "x.parquet", DataOptions(on_error="skip")).fingerprint()

    @pytest.mark.parametrize("rows", [1, 2, 1000])
    def test_nulls_among_numbers_are_nan(self, tmp_path: Path, rows: int) -> None:
        columns = {
            "a": pa.array([1.5, None, 2.5, 3.5]),
            "b": pa.array([1, 2, None, 4]),
            "c": pa.array([True, True, True, None]),
        }
        source = open_source(write(tmp_path / "x.parquet", columns, rows), DataOptions())
        expected = [[1.5, 1, 1], [np.nan, 2, 1], [2.5, np.nan, 1], [3.5, 4, np.nan]]
        for size in (1, 3, 100):
            read = np.concatenate([b.inputs["0"] for b in source.batches(size)])
            np.testing.assert_array_equal(read, expected)
        lists = opened(tmp_path, {"x": [[1.0, None], [2.0, 3.0]]})
        np.testing.assert_array_equal(whole(lists).inputs["0"], [[1, np.nan], [2, 3]])

    def test_nulls_that_the_file_does_not_announce_are_bad_rows(self, tmp_path: Path) -> None:
        table = pa.table({"a": [1, None, 3], "t": ["u", "v", None]})
        pq.write_table(table, tmp_path / "x.parquet", write_statistics=False)
        options = DataOptions(on_error="skip", signature=InputSignature(("a", "t")))
        batch = whole(open_source(tmp_path / "x.parquet", options))
        assert (batch.inputs["a"].tolist(), batch.inputs["t"].tolist()) == ([1], ["u"])
        assert [b.reason.split(" of ")[0] for b in batch.bad] == [
            f"it has no value (null) in the column {c}" for c in "at"
        ]


class TestText:
    def test_text_is_as_wide_as_the_longest_of_its_batch(self, tmp_path: Path) -> None:
        texts = ["a", "bb", "c" * 70, "dddd", "e"]
        path = write(tmp_path / "x.parquet", {"t": texts, "other": texts}, 1)
        source = open_source(path, DataOptions(signature=InputSignature(("t",))))
        for size in (1, 2, 100):
            assert [t for b in source.batches(size) for t in b.inputs["t"].tolist()] == texts

    def test_missing_text(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.parquet", {"t": ["a", None, "b"]}, 1)
        batch = whole(open_source(path, DataOptions(signature=InputSignature(("t",)))))
        assert batch.inputs["t"].tolist() == ["a", None, "b"]

    def test_columns_that_the_model_names_and_the_file_has_not(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"takes columns that .*x\.parquet has not: 'b'; it has 'a', 'c'"):
            opened(tmp_path, {"a": [1.0], "c": [2.0]}, signature=InputSignature(("a", "b")))


def test_start_skips_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(300, dtype=np.float32).reshape(100, 3)
    source = open_source(write(tmp_path / "x.parquet", {"x": fixed(x)}, 10), DataOptions())
    source.peek(1)
    asked: list[list[int]] = []
    read = pq.ParquetFile.iter_batches

    def watched(self: Any, *args: Any, row_groups: list[int], **rest: Any) -> Any:
        asked.append(row_groups)
        return read(self, *args, row_groups=row_groups, **rest)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    batches = list(source.batches(16, 57))
    assert asked == [[5, 6, 7, 8, 9]]
    assert [(b.start, len(b)) for b in batches] == [(57, 7), (64, 16), (80, 16), (96, 4)]
    assert batches[0].inputs["0"][0].tolist() == x[57].tolist()


def test_the_file_is_streamed(tmp_path: Path) -> None:
    x = np.zeros((400_000, 16), np.float32)
    path = write(tmp_path / "x.parquet", {"x": fixed(x)}, 400_000)
    source = open_source(path, DataOptions())
    before = pa.total_allocated_bytes()
    peak = 0
    rows = 0
    for batch in source.batches(256):
        rows += len(batch)
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert rows == 400_000
    assert peak < x.nbytes / 2, f"{peak} of {x.nbytes} bytes were held at once"


def test_functions(tmp_path: Path) -> None:
    columns = {"a": fixed(X), "text": ["x", "y", "z", "w"], "y": [0, 1, 2, 3]}
    source = opened(
        tmp_path, columns, input_getter=lambda row: np.array(row["a"]) * len(row["text"]), transform=np.negative
    )
    batch = whole(source)
    np.testing.assert_array_equal(batch.inputs["0"], -X)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2, 3]
    named = opened(tmp_path, columns, signature=InputSignature(("a",)), transform=lambda row: row["a"] + 1)
    np.testing.assert_array_equal(whole(named).inputs["0"], X + 1)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 15), st.integers(0, 40), st.integers(1, 9))
def test_any_groups_sizes_and_starts(
    tmp_path_factory: pytest.TempPathFactory, n: int, group: int, size: int, start: int, decoded: int
) -> None:
    x = np.arange(2 * n, dtype=np.float64).reshape(n, 2)
    path = write(tmp_path_factory.mktemp("parquet") / "x.parquet", {"x": fixed(x)}, group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_ROWS", decoded)
        batches = list(open_source(path, DataOptions()).batches(size, start))
    assert [i for b in batches for i in b.ids.tolist()] == list(range(start, n))
    found = [r.tolist() for b in batches for r in b.inputs["0"]]
    assert found == x[start:].tolist()
    assert all(b.stop % size == 0 for b in batches[:-1])


def test_a_damaged_page(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((5000, 4)).astype(np.float32)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": fixed(x)}), path, use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Reading the rows from 0 on of .*x\.parquet: it is damaged"):
        list(open_source(path, DataOptions()).batches(100))


@pytest.mark.parametrize("name", ["x", "id", "label"])
def test_two_columns_of_one_name(tmp_path: Path, name: str) -> None:
    names = ["x", "id", "label", "note", "note", name]
    columns = [pa.array([1.0, 2.0]), pa.array([1, 2]), pa.array([0, 1]), pa.array(["a", "b"]), pa.array(["c", "d"])]
    pq.write_table(pa.Table.from_arrays([*columns, columns[names.index(name)]], names), tmp_path / "x.parquet")
    with pytest.raises(
        DataError, match=rf"x\.parquet has 2 columns called {name}, so that which one is meant cannot be determined"
    ):
        open_source(tmp_path / "x.parquet", DataOptions())


def test_two_columns_that_are_not_read_may_have_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array([1.0, 2.0]), pa.array(["a", "b"]), pa.array(["c", "d"])], ["x", "note", "note"]
    )
    pq.write_table(table, tmp_path / "x.parquet")
    assert whole(open_source(tmp_path / "x.parquet", DataOptions())).inputs["0"].tolist() == [[1.0], [2.0]]


def test_no_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({}), tmp_path / "x.parquet")
    with pytest.raises(
        DataError, match=r"x\.parquet has no column of numbers or of lists of numbers; it has no columns"
    ):
        open_source(tmp_path / "x.parquet", DataOptions())


def test_the_fingerprint_reads_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(6_000, dtype=np.float32).reshape(2_000, 3)
    passes: list[int] = []
    tables = module.ParquetSource._tables

    def counted(self: Any, start: int, rows: int) -> Any:
        passes.append(start)
        return tables(self, start, rows)

    monkeypatch.setattr(module.ParquetSource, "_tables", counted)
    prints = set()
    for rows, groups in ((2_000, 1), (1_200, 2), (500, 4), (1, 16)):
        source = open_source(write(tmp_path / "x.parquet", {"x": fixed(x)}, rows), DataOptions())
        source.peek(1)
        passes.clear()
        prints.add(source.fingerprint())
        assert len(passes) == groups
    assert len(prints) == 1, "how the rows are grouped changes the fingerprint"
