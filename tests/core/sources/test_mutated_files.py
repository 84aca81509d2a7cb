"""Data files with bytes flipped, cut, inserted, swapped and doubled: rows, or an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mutations import MUTATIONS
from PIL import Image
from safetensors.numpy import save_file

from fo_onnx.cli.shared.data import load_ids
from fo_onnx.cli.shared.models import load_params
from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import FoOnnxError
from fo_onnx.sources import ImageFolder, open_source
from fo_onnx.sources.labels import read_labels

QUICK, MANY = 100, 2000
X = np.random.default_rng(0).random((40, 6), dtype=np.float32)
NAMES = [["cat1", "dog2", "owl3"][i % 3] for i in range(40)]
PICTURE = Image.fromarray((np.random.default_rng(1).random((12, 10, 3)) * 255).astype(np.uint8))
Write, Read = Callable[[Path], Any], Callable[[Path], Any]


def read_rows(path: Path) -> None:
    source = open_source(path, DataOptions())
    source.peek(3)
    list(source.batches(16))
    source.fingerprint()


def read_picture(path: Path) -> None:
    ImageFolder(path.parent).read(path)


def write_parquet(path: Path) -> None:
    column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 6)
    pq.write_table(pa.table({"id": list(range(40)), "x": column, "label": NAMES}), path, row_group_size=16)


def write_lists(path: Path) -> None:
    pq.write_table(pa.table({"x": X.tolist()}), path, compression="gzip", write_page_checksum=True)


def write_text(text: str) -> Write:
    return lambda path: path.write_text(text)


READERS: dict[str, tuple[str, Write, Read]] = {
    "rows.npy": ("x.npy", lambda p: np.save(p, X), read_rows),
    "rows.npz": ("x.npz", lambda p: np.savez(p, x=X, label=NAMES), read_rows),
    "compressed rows.npz": ("x.npz", lambda p: np.savez_compressed(p, x=X, id=np.arange(40)), read_rows),
    "rows.parquet": ("x.parquet", write_parquet, read_rows),
    "lists.parquet": ("x.parquet", write_lists, read_rows),
    "labels.npy": ("y.npy", lambda p: np.save(p, np.arange(40) % 3), read_labels),
    "labels.json": ("y.json", write_text(json.dumps(NAMES)), read_labels),
    "labels.txt": ("y.txt", write_text("\n".join(map(str, range(40)))), read_labels),
    "labels.csv": ("y.csv", write_text("label\n" + "\n".join(f'"{n}"' for n in NAMES)), read_labels),
    "ids.npy": ("i.npy", lambda p: np.save(p, np.array([f"é{i}" for i in range(40)])), load_ids),
    "ids.json": ("i.json", write_text(json.dumps([f"é{i}" for i in range(40)])), load_ids),
    "ids.txt": ("i.txt", write_text("\n".join(f"é{i}" for i in range(40))), load_ids),
    "params.npz": ("p.npz", lambda p: np.savez(p, **{"a.w": X, "a.b": X[0]}), lambda p: load_params(str(p))),
    "params.safetensors": (
        "p.safetensors",
        lambda p: save_file({"a.w": X, "a.b": X[0]}, p),
        lambda p: load_params(str(p)),
    ),
    **{
        f"picture{suffix}": (f"a{suffix}", PICTURE.save, read_picture)
        for suffix in (".bmp", ".gif", ".jpg", ".png", ".ppm", ".tif", ".webp")
    },
}


def mutate(folder: Path, what: str, first: int, count: int) -> list[str]:
    name, write, read = READERS[what]
    path = folder / name
    write(path)
    read(path)
    whole = path.read_bytes()
    problems = []
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        path.write_bytes(mutation(bytearray(whole), rng))
        try:
            read(path)
        except FoOnnxError as err:
            if path.name not in str(err):
                problems.append(f"{seed} {mutation.__name__}: an error that does not name the file: {err}")
        except Exception as err:
            problems.append(f"{seed} {mutation.__name__}: {type(err).__name__}: {err}")
    return problems


@pytest.mark.parametrize("what", READERS)
def test_mutated_files(what: str, tmp_path: Path) -> None:
    assert mutate(tmp_path, what, first=0, count=QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize("what", READERS)
def test_many_mutated_files(what: str, tmp_path: Path) -> None:
    assert mutate(tmp_path, what, first=QUICK, count=MANY) == []
