"""DATA, ids, class names and made-up rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fo_onnx
from fo_onnx.cli.shared.data import load_data, load_ids, random_rows
from fo_onnx.errors import DataError, DataNotFoundError, OptionError


def test_references_files_and_folders(work: Path) -> None:
    assert load_data("app:images", {}).shape == (600, 1, 8, 8)
    assert len(load_data("app:dataset", {})) == 600
    assert load_data("x.npy", {}) == Path("x.npy")
    Path("folder").mkdir()
    assert load_data("folder", {"resize": 8, "mode": "L"}) == fo_onnx.ImageFolder("folder", resize=8, mode="L")


def test_data_that_are_not_there(work: Path) -> None:
    with pytest.raises(
        DataNotFoundError, match=r"opening the data app:imags: .* has no 'imags'. It has images \(ndarray\)"
    ):
        load_data("app:imags", {})
    with pytest.raises(OptionError, match="--resize, --mean: x.npy is no folder of images"):
        load_data("x.npy", {"resize": 8, "mean": 0.5})


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True)
    | st.lists(st.text("abc.012 -", min_size=1), min_size=1, unique=True)
)
def test_ids_come_back(tmp_path_factory: pytest.TempPathFactory, ids: list[int] | list[str]) -> None:
    folder = tmp_path_factory.mktemp("ids")
    (folder / "i.json").write_text(json.dumps(ids))
    (folder / "i.txt").write_text("\n".join(map(str, ids)))
    np.save(folder / "i.npy", np.array(ids))
    assert load_ids(folder / "i.json") == ids
    if isinstance(ids[0], int):
        assert load_ids(folder / "i.txt") == ids
        assert load_ids(folder / "i.npy") == ids


def test_leading_zeros_stay(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("007\n008\n")
    assert load_ids(tmp_path / "i.txt") == ["007", "008"]


def test_ids_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="there is no file of ids at"):
        load_ids(tmp_path / "i.txt")
    (tmp_path / "i.json").write_text("{}")
    with pytest.raises(DataError, match=r"holds a dict; a list with one id per row was expected"):
        load_ids(tmp_path / "i.json")
    (tmp_path / "i.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"Reading the ids .*i\.npy: it is damaged"):
        load_ids(tmp_path / "i.npy")
    (tmp_path / "i.doc").touch()
    with pytest.raises(DataError, match=r"\.npy, \.json, \.txt, \.csv were expected"):
        load_ids(tmp_path / "i.doc")


def test_made_up_rows_are_of_the_shape_and_dtype_and_the_same_again() -> None:
    rows = random_rows([(None, (3, 4))], [])
    assert rows.shape == (64, 3, 4)
    assert rows.dtype == np.float32
    assert np.array_equal(rows, random_rows([(None, (3, 4))], []))
    assert 0.8 < rows.std() < 1.2
    first, second = random_rows([(None, (3,)), (None, (5,))], [(None, "float32"), (None, "int64")])
    assert (first.dtype, second.dtype) == (np.float32, np.int64)
    assert (second.min(), second.max()) == (0, 9)
    named = random_rows([("a", (3,)), ("b", ())], [("b", "int32")])
    assert {k: (v.shape, v.dtype.name) for k, v in named.items()} == {"a": ((64, 3), "float32"), "b": ((64,), "int32")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-shape", "3,x"], "'3,x' is not understood; SIZE,SIZE,…, or name=SIZE,SIZE,…, was expected."),
        (["--input-shape", "0,3"], "'0,3' is not understood"),
        (["--input-shape", "3", "--input-dtype", "text"], "'text' is not understood; DTYPE"),
        (["--input-shape", "a=3", "--input-shape", "3"], "either every input has a name of its own, or none has"),
        (["--input-shape", "a=3", "--input-dtype", "b=int64"], "no --input-shape has the name 'b'"),
        (["--input-shape", "3", "--input-dtype", "int8", "--input-dtype", "int8"], "was given 2 times; once, or 1 times"),
        (["--input-dtype", "int8", "--example", "x.npy"], "--input-dtype is for --input-shape"),
        (["--input-shape", "3", "--example", "x.npy"], "with either --example or --input-shape"),
        ([], "with either --example or --input-shape"),
        (["--input-shape", "3", "--class-names", "a"], "'a' is no file, and no list of at least two names"),
        (["--input-shape", "3", "--class-names", "bad.json"], "one name per line, or a JSON list of text, was expected"),
        (["--input-shape", "3", "--output", "scores"], "'scores' is not one of 'auto', 'logits'"),
    ],
)  # fmt: skip
def test_wrong_usage(run, work: Path, arguments: list[str], message: str) -> None:
    Path("bad.json").write_text("[1, 2]")
    result = run("export", "app:fresh", "-o", "e.onnx", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not Path("e.onnx").exists()
