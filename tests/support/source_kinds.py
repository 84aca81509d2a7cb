"""The kinds of data that sources are made of; a new source joins by one `Kind` in `KINDS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.sources import ImageFolder, open_source

POISON = -1000.0


@dataclass(frozen=True)
class Data:
    """Rows of which a kind makes its data: x (n, 3) float32, y (n,), and positions that cannot be read."""

    x: np.ndarray
    y: np.ndarray
    bad: tuple[int, ...] = ()

    @classmethod
    def of(cls, n: int, seed: int = 0, bad: tuple[int, ...] = ()) -> Data:
        rng = np.random.default_rng(seed)
        # Integers up to 255, so that pixels can hold them; all rows differ.
        x = rng.permuted(np.tile(np.arange(256, dtype=np.float32), (3, 1)), axis=1).T[:n]
        return cls(np.ascontiguousarray(x), rng.integers(0, 4, n), bad)

    @property
    def good(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.x)), self.bad)

    @property
    def poisoned(self) -> np.ndarray:
        x = self.x.copy()
        x[list(self.bad)] = POISON
        return x


@dataclass(frozen=True)
class Kind:
    """One kind of data.

    Attributes:
        open: Makes the data in a folder and opens them.
        row: What becomes of a row x (3,).
        name: The input's name.
        ids: The ids of n rows; positions where left out.
        failure: ``"row"``: a row can fail alone; ``"end"``: a failure ends all; ``None``: rows cannot fail.
        has_labels: Whether labels are found without labels=.
        one_pass: Whether the rows can be read only once.
    """

    open: Callable[[Data, DataOptions, Path], Source]
    row: Callable[[np.ndarray], np.ndarray] = lambda x: x
    name: str = "0"
    ids: Callable[[Data], list[Any]] = lambda d: list(range(len(d.x)))
    failure: str | None = None
    has_labels: bool = True
    one_pass: bool = False


class Rows:
    """A sequence of (x, y) whose bad rows raise."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.x)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if i >= len(self):
            raise IndexError(i)
        if i in self.data.bad:
            raise ValueError(f"no reading {i}")
        return self.data.x[i], int(self.data.y[i])


def refuse_poison(x: Any) -> Any:
    if np.any(np.asarray(x) == POISON):
        raise ValueError("poison")
    return x


def with_transform(options: DataOptions) -> DataOptions:
    return dataclasses.replace(options, transform=refuse_poison)


def open_npy(data: Data, options: DataOptions, folder: Path) -> Source:
    np.save(folder / "x.npy", data.x)
    return open_source(folder / "x.npy", options)


def open_npz(data: Data, options: DataOptions, folder: Path) -> Source:
    np.savez(folder / "x.npz", x=data.x, y=data.y)
    return open_source(str(folder / "x.npz"), options)


def open_parquet(data: Data, options: DataOptions, folder: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(data.poisoned.ravel()), 3)
    table = pa.table({"x": column, "label": data.y})
    pq.write_table(table, folder / "x.parquet", row_group_size=5)
    return open_source(folder / "x.parquet", options)


def open_parquet_scalars(data: Data, options: DataOptions, folder: Path) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ids = [f"row-{i}" for i in range(len(data.x))]
    columns = {f"c{i}": data.x[:, i] for i in range(3)}
    pq.write_table(pa.table({"id": ids, **columns, "y": data.y}), folder / "x.parquet", row_group_size=7)
    return open_source(folder / "x.parquet", options)


def open_parquet_with_nulls(data: Data, options: DataOptions, folder: Path) -> Source:
    import pyarrow.parquet as pq

    pq.write_table(table_with_nulls(data), folder / "x.parquet", row_group_size=5)
    return open_source(folder / "x.parquet", options)


def open_table(data: Data, options: DataOptions, folder: Path) -> Source:
    from fo_onnx.sources.tables import TableSource

    return TableSource(table_with_nulls(data), options)


def table_with_nulls(data: Data) -> Any:
    """Return a table whose rows are lists, and null where they are bad."""
    import pyarrow as pa

    rows = [None if i in data.bad else row for i, row in enumerate(data.x.tolist())]
    return pa.table({"x": pa.array(rows, pa.list_(pa.float32())), "label": data.y})


def open_images(data: Data, options: DataOptions, folder: Path) -> Source:
    from PIL import Image

    for i, x in enumerate(data.x):
        path = folder / "all" / image_id(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.broadcast_to(x.astype(np.uint8), (2, 2, 3)).copy()).save(path)
        if i in data.bad:
            path.write_bytes(path.read_bytes()[:40])
    (folder / "all").mkdir(exist_ok=True)
    return open_source(ImageFolder(folder / "all"), options)


def image_id(i: int) -> str:
    # One class per block of rows keeps the order of paths that of rows.
    return f"class{i // 6:02d}/{i:03d}.png"


def open_torch(make: Callable[[Any, Data], Any]) -> Callable[[Data, DataOptions, Path], Source]:
    def opening(data: Data, options: DataOptions, folder: Path) -> Source:
        torch = pytest.importorskip("torch")
        from fo_onnx_torch.sources import TorchSources

        return open_source(make(torch, data), options, [TorchSources()])

    return opening


def torch_dataset(torch: Any, data: Data) -> Any:
    class Mapped(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(data.x)

        def __getitem__(self, i: int) -> Any:
            x, y = Rows(data)[i]
            return torch.from_numpy(x.copy()), y

    return Mapped()


def torch_stream(torch: Any, data: Data) -> Any:
    class Streamed(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[Any]:
            return ((torch.from_numpy(x.copy()), y) for x, y in pairs(data))

    return Streamed()


def tensor_dataset(torch: Any, data: Data) -> Any:
    return torch.utils.data.TensorDataset(torch.from_numpy(data.x.copy()), torch.from_numpy(data.y.copy()))


def open_tensorflow(make: Callable[[Any, Data], Any]) -> Callable[[Data, DataOptions, Path], Source]:
    def opening(data: Data, options: DataOptions, folder: Path) -> Source:
        tf = pytest.importorskip("tensorflow")
        from fo_onnx_keras.sources import TensorFlowSources

        return open_source(make(tf, data), options, [TensorFlowSources()])

    return opening


def tf_stream(tf: Any, data: Data) -> Any:
    specs = (tf.TensorSpec((3,), tf.float32), tf.TensorSpec((), tf.int64))
    return tf.data.Dataset.from_generator(lambda: pairs(data), output_signature=specs)


def open_jax(make: Callable[[Any, Data], Any]) -> Callable[[Data, DataOptions, Path], Source]:
    def opening(data: Data, options: DataOptions, folder: Path) -> Source:
        jax = pytest.importorskip("jax")
        from fo_onnx_jax.sources import JaxSources

        return open_source(make(jax.numpy, data), options, [JaxSources()])

    return opening


def pairs(data: Data) -> Iterator[tuple[np.ndarray, int]]:
    return (Rows(data)[i] for i in range(len(data.x)))


def chunks(data: Data, n: int = 5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(data.x), n):
        if any(i <= b < i + n for b in data.bad):
            first = min(b for b in data.bad if b >= i)
            if first > i:
                yield data.x[i:first], data.y[i:first]
            raise ValueError("no reading on")
        yield data.x[i : i + n], data.y[i : i + n]


class Again:
    """What can be iterated over again and again."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return self.make()


KINDS: dict[str, Kind] = {
    "array": Kind(lambda d, o, p: open_source(d.x, o), has_labels=False),
    "tuple of arrays": Kind(lambda d, o, p: open_source((d.x, d.y), o)),
    "dict of arrays": Kind(lambda d, o, p: open_source({"x": d.x, "y": d.y}, o), name="x"),
    "arrays, transformed": Kind(lambda d, o, p: open_source((d.poisoned, d.y), with_transform(o)), failure="row"),
    "npy": Kind(open_npy, has_labels=False),
    "npz": Kind(open_npz, name="x"),
    "sequence": Kind(lambda d, o, p: open_source(Rows(d), o), failure="row"),
    "sequence, threads": Kind(
        lambda d, o, p: open_source(Rows(d), dataclasses.replace(o, num_workers=3)), failure="row"
    ),
    "list of dicts": Kind(
        lambda d, o, p: open_source([{"a": x, "label": y} for x, y in zip(d.x, d.y, strict=True)], o), name="a"
    ),
    "generator of samples": Kind(lambda d, o, p: open_source(pairs(d), o), failure="end", one_pass=True),
    "generator of batches": Kind(lambda d, o, p: open_source(chunks(d), o), failure="end", one_pass=True),
    "generator, transformed": Kind(
        lambda d, o, p: open_source(zip(d.poisoned, d.y, strict=True), with_transform(o)), failure="row", one_pass=True
    ),
    "batches, transformed": Kind(
        lambda d, o, p: open_source(chunks(Data(d.poisoned, d.y)), with_transform(o)), failure="row", one_pass=True
    ),
    "iterable of samples": Kind(lambda d, o, p: open_source(Again(lambda: pairs(d)), o), failure="end"),
    "iterable of batches": Kind(lambda d, o, p: open_source(Again(lambda: chunks(d)), o), failure="end"),
    "parquet": Kind(open_parquet),
    "parquet, scalars": Kind(open_parquet_scalars, ids=lambda d: [f"row-{i}" for i in range(len(d.x))]),
    "parquet, transformed": Kind(lambda d, o, p: open_parquet(d, with_transform(o), p), failure="row"),
    "parquet with nulls": Kind(open_parquet_with_nulls, failure="row"),
    "arrow table": Kind(open_table, failure="row"),
    "images": Kind(
        open_images,
        row=lambda x: np.broadcast_to(x[:, None, None] / np.float32(255), (3, 2, 2)),
        ids=lambda d: [image_id(i) for i in range(len(d.x))],
        failure="row",
    ),
    "torch tensors": Kind(open_torch(lambda torch, d: (torch.from_numpy(d.x.copy()), torch.from_numpy(d.y.copy())))),
    "torch TensorDataset": Kind(open_torch(tensor_dataset)),
    "torch Dataset": Kind(open_torch(torch_dataset), failure="row"),
    "torch IterableDataset": Kind(open_torch(torch_stream), failure="end"),
    "torch DataLoader": Kind(
        open_torch(lambda torch, d: torch.utils.data.DataLoader(torch_dataset(torch, d), batch_size=1)), failure="end"
    ),
    "torch generator": Kind(
        open_torch(lambda torch, d: ((torch.from_numpy(x.copy()), y) for x, y in pairs(d))),
        failure="end",
        one_pass=True,
    ),
    "tf tensors": Kind(open_tensorflow(lambda tf, d: (tf.constant(d.x), tf.constant(d.y)))),
    "tf Dataset": Kind(open_tensorflow(lambda tf, d: tf.data.Dataset.from_tensor_slices((d.x, d.y)))),
    "tf Dataset, batched": Kind(open_tensorflow(lambda tf, d: tf.data.Dataset.from_tensor_slices((d.x, d.y)).batch(5))),
    "tf Dataset of a generator": Kind(open_tensorflow(tf_stream), failure="end"),
    "jax arrays": Kind(open_jax(lambda jnp, d: (jnp.asarray(d.x), jnp.asarray(d.y)))),
    "jax dict": Kind(open_jax(lambda jnp, d: {"x": jnp.asarray(d.x), "y": jnp.asarray(d.y)}), name="x"),
    "list of jax samples": Kind(
        open_jax(lambda jnp, d: [(jnp.asarray(x), int(y)) for x, y in zip(d.x, d.y, strict=True)])
    ),
}
FAILING = [name for name, kind in KINDS.items() if kind.failure == "row"]
ENDING = [name for name, kind in KINDS.items() if kind.failure == "end"]


class Room:
    """Opens sources of one kind, each in a fresh folder."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.count = 0

    def open(self, data: Data, **options: Any) -> Source:
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        return self.kind.open(data, DataOptions(**options), folder)

    def labels(self, data: Data) -> np.ndarray | None:
        if self.kind.open is open_images:
            return np.arange(len(data.x)) // 6
        return data.y if self.kind.has_labels else None
