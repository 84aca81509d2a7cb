"""Files of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fo_onnx.cli.shared.data import load_ids
from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import DataError, DataNotFoundError
from fo_onnx.guards.array_files import read_npy, read_npz
from fo_onnx.sources import ImageFolder, open_source
from fo_onnx.sources.labels import read_labels


def test_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(4, 3))
    source = open_source(tmp_path / "x.npy", DataOptions())
    assert source.in_memory
    base: Any = source.peek(2).inputs["0"]
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_an_empty_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    source = open_source(tmp_path / "x.npy", DataOptions())
    assert (source.length, source.peek(2).inputs["0"].shape) == (0, (0, 3))


def test_npz_members_by_name(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "X.NPZ".lower(), a=np.zeros((4, 3)), b=np.ones((4, 2)), label=["u", "v", "u", "v"])
    source = open_source(tmp_path / "x.npz", DataOptions())
    assert list(source.peek(2).inputs) == ["a", "b"]
    assert source.class_names == ("u", "v")


def test_labels_from_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    (tmp_path / "y.txt").write_text("1\n0\n2\n")
    source = open_source(tmp_path / "x.npy", DataOptions(labels=tmp_path / "y.txt"))
    assert source.peek(3).labels.tolist() == [1, 0, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "folder"])
def test_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataNotFoundError, match=rf"there are no data at .*{name}\."):
        open_source(tmp_path / name, DataOptions())
    with pytest.raises(FileNotFoundError):
        open_source(str(tmp_path / name), DataOptions())


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet"])
@pytest.mark.parametrize("content", [b"", b"not what the suffix says", None])
def test_broken(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is None:  # cut in the middle
        if name == "x.parquet":
            pa = pytest.importorskip("pyarrow")
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"a": np.zeros(1000)}), path)
        else:
            {"x.npy": np.save, "x.npz": np.savez}[name](path, np.arange(1000.0))
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"Reading .*{name}: (it is damaged|no Parquet footer|.* cut short)"):
        open_source(path, DataOptions())


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_pickles_are_not_opened(tmp_path: Path, save: Any) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, np.array([Trap()], dtype=object))
    with pytest.raises(
        DataError, match="an array of Python objects, which only unpickling could read; that is never done"
    ):
        open_source(path, DataOptions())
    assert not (tmp_path / "sprung").exists()


def test_other_suffixes(tmp_path: Path) -> None:
    (tmp_path / "x.h5").touch()
    with pytest.raises(
        DataError,
        match=r"x\.h5 has the suffix '\.h5', from which no rows are read; \.npy, \.npz, \.parquet or a folder of",
    ):
        open_source(tmp_path / "x.h5", DataOptions())


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".npy", "a\0b.npy"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"x{200}|a\\x00b"):
        open_source(str(tmp_path / name), DataOptions())
    with pytest.raises(DataError, match=r"x{200}|a\\x00b"):
        open_source(ImageFolder(tmp_path / name), DataOptions())
    with pytest.raises(DataError, match=r"x{200}|a\\x00b"):
        read_labels(str(tmp_path / name))
    with pytest.raises(DataError, match=r"x{200}|a\\x00b"):
        load_ids(tmp_path / name)


def test_errors_of_the_content_name_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((4, 3)), b=np.zeros((5, 3)))
    with pytest.raises(DataError, match=r"Reading .*x\.npz: "):
        open_source(tmp_path / "x.npz", DataOptions())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "?", "<U3"])
def test_arrays_are_those_that_numpy_reads(tmp_path: Path, order: Any, dtype: str) -> None:
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    np.savez_compressed(tmp_path / "x.npz", x=array)
    for found in (
        read_npy(tmp_path / "x.npy", DataError),
        read_npy(tmp_path / "x.npy", DataError, mapped=True),
        read_npz(tmp_path / "x.npz", DataError)["x"],
    ):
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


def test_a_parquet_file_that_vanishes_is_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": np.zeros(10)}), tmp_path / "x.parquet")
    source = open_source(tmp_path / "x.parquet", DataOptions())
    (tmp_path / "x.parquet").unlink()
    with pytest.raises(DataError, match=r"x\.parquet: it is not there \(any more\)"):
        list(source.batches(4))
