"""The contract of sources. A new source joins by one `Kind` in `KINDS`.

Every check is a function of freshly opened sources and of the truth about their rows, so that it can also be run
against sources that are wrong on purpose.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fo_onnx.errors import DataError
from fo_onnx.options import DataOptions
from fo_onnx.protocols import Batch, Source
from fo_onnx.sources import ImageFolder, open_source

POISON = -1000.0
SIZES = (1, 3, 4, 7, 16, 23, 24, 100)


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


@pytest.fixture(params=list(KINDS))
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Room:
    return Room(KINDS[request.param], tmp_path)


# --- the checks


def check_batch(batch: Batch, room: Room, data: Data) -> None:
    """A batch holds the rows that it says it holds."""
    accounted = np.arange(batch.start, batch.stop)
    good = np.setdiff1d(accounted, data.bad)
    assert [b.position for b in batch.bad] == np.intersect1d(accounted, data.bad).tolist()
    ids = room.kind.ids(data)
    assert batch.ids.tolist() == [ids[i] for i in good]
    assert [b.id for b in batch.bad] == [ids[b.position] for b in batch.bad]
    if len(batch):
        assert list(batch.inputs) == [room.kind.name]
        found = batch.inputs[room.kind.name]
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, np.stack([room.kind.row(data.x[i]) for i in good]))
        assert found.dtype == np.float32
    labels = room.labels(data)
    if labels is None:
        assert batch.labels is None
    elif len(data.good):  # where no row can be read, none tells whether there are labels
        assert batch.labels is not None
        assert batch.labels.dtype == np.int64
        assert batch.labels.tolist() == labels[good].tolist()


def check_whole(source: Source, room: Room, data: Data, size: int, start: int = 0) -> list[Batch]:
    """Every row from `start` on, in order, once, in batches that end at multiples of `size`."""
    batches = list(source.batches(size, start))
    position = start
    for batch in batches:
        assert batch.start == position, f"a batch begins at {batch.start} instead of {position}"
        assert batch.stop == min(len(data.x), (position // size + 1) * size)
        check_batch(batch, room, data)
        position = batch.stop
    assert position == len(data.x), f"{position} of {len(data.x)} rows came"
    return batches


def check_peek(source: Source, room: Room, data: Data) -> None:
    for n in (3, 3, 1, 0, 5):
        batch = source.peek(n)
        assert len(batch) == n
        if n:
            check_batch(batch, room, data)
    assert len(source.peek(1000)) == len(data.good)
    check_whole(source, room, data, 4)
    check_batch(source.peek(5), room, data)


def check_facts(source: Source, room: Room, data: Data) -> None:
    assert source.length in (None, len(data.x))
    assert source.id_kind == ("int" if isinstance(room.kind.ids(data)[0], int) else "str")
    assert source.has_labels == (room.labels(data) is not None)
    assert isinstance(source.in_memory, bool)
    assert isinstance(source.preprocessing, dict)


def check_fingerprint(open_: Callable[[Data], Source], data: Data) -> None:
    found = open_(data).fingerprint()
    assert found == open_(data).fingerprint(), "equal data, another fingerprint"
    changed = data.x.copy()
    changed[0, 0] += 1
    assert found != open_(dataclasses.replace(data, x=changed)).fingerprint(), "a changed row was not seen"
    shorter = Data(data.x[:10], data.y[:10])
    assert found != open_(shorter).fingerprint(), "another length was not seen"
    source = open_(data)
    for _ in source.batches(7):
        pass
    assert source.fingerprint() == found, "reading changed the fingerprint"


# --- the suite


@pytest.mark.parametrize("size", SIZES)
def test_every_row_comes_once_and_in_order(room: Room, size: int) -> None:
    data = Data.of(23)
    check_whole(room.open(data), room, data, size)


@pytest.mark.parametrize("size", [4, 7])
def test_a_later_start_keeps_the_borders(room: Room, size: int) -> None:
    data = Data.of(23)
    for start in (0, 1, size - 1, size, size + 1, 3 * size, 22, 23, 30):
        if start <= 23:
            check_whole(room.open(data), room, data, size, start)
        else:
            assert list(room.open(data).batches(size, start)) == []


def test_peeking_again_and_again(room: Room) -> None:
    data = Data.of(23)
    check_peek(room.open(data), room, data)


def test_facts(room: Room) -> None:
    data = Data.of(23)
    check_facts(room.open(data), room, data)


def test_fingerprint(room: Room) -> None:
    check_fingerprint(room.open, Data.of(23))


def test_reading_again_gives_the_same_or_says_why_not(room: Room) -> None:
    data = Data.of(23)
    source = room.open(data)
    check_whole(source, room, data, 4)
    if room.kind.one_pass:
        with pytest.raises(DataError, match="an iterator that has been read already, and can be read only once"):
            list(source.batches(4))
    else:
        check_whole(source, room, data, 4)


@pytest.mark.parametrize("limit", [1, 4, 10, 23, 50])
def test_limit(room: Room, limit: int) -> None:
    data = Data.of(23)
    first = Data(data.x[:limit], data.y[:limit])
    source = room.open(data, limit=limit)
    assert source.length in (None, len(first.x))
    assert len(source.peek(100)) == len(first.x)
    check_whole(source, room, first, 4)


def test_limit_0(room: Room) -> None:
    source = room.open(Data.of(23), limit=0)
    assert list(source.batches(4)) == []
    assert len(source.peek(4)) == 0


def test_labels_and_ids_beside_the_data(room: Room) -> None:
    data = Data.of(23)
    ids = [f"sample {i * 7 % 23}" for i in range(23)]
    labels = np.arange(23) % 5
    source = room.open(data, ids=ids, labels=labels)
    assert source.has_labels
    assert source.id_kind == "str"
    batches = list(source.batches(4))
    assert [i for b in batches for i in b.ids.tolist()] == ids
    assert [c for b in batches if b.labels is not None for c in b.labels.tolist()] == labels.tolist()


@pytest.mark.parametrize("given", ["labels", "ids"])
@pytest.mark.parametrize("count", [20, 26])
def test_labels_or_ids_of_another_length(room: Room, given: str, count: int) -> None:
    data = Data.of(23)
    values = list(range(count))
    with pytest.raises(DataError, match=rf"{given}= has {count} entries, but the data have (23|more) rows"):
        list(room.open(data, **{given: values}).batches(4))


def test_empty(tmp_path: Path, room: Room) -> None:
    if room.kind.open is open_images:
        with pytest.raises(DataError, match="holds no images"):
            room.open(Data.of(0))
        return
    source = room.open(Data.of(0))
    assert source.length in (None, 0)
    assert list(source.batches(4)) == []
    batch = source.peek(4)
    assert len(batch) == 0
    assert all(len(a) == 0 for a in batch.inputs.values())
    assert source.fingerprint() == source.fingerprint()


@pytest.mark.parametrize("name", FAILING)
class TestRowsThatFail:
    @pytest.fixture
    def room(self, name: str, tmp_path: Path) -> Room:
        return Room(KINDS[name], tmp_path)

    @pytest.mark.parametrize("on_error", ["skip", "record"])
    @pytest.mark.parametrize("bad", [(0,), (5,), (3, 4, 5), (22,), (0, 7, 8, 9, 10, 11, 22), tuple(range(23))])
    @pytest.mark.parametrize("size", [4, 30])
    def test_skipped_and_told(self, room: Room, on_error: str, bad: tuple[int, ...], size: int) -> None:
        data = Data.of(23, bad=bad)
        batches = check_whole(room.open(data, on_error=on_error), room, data, size)
        assert sum(len(b.bad) for b in batches) == len(bad)
        assert all(b.reason.split(":")[0].endswith(("Error", "ValueError")) for batch in batches for b in batch.bad)

    @pytest.mark.parametrize("start", [5, 6, 9])
    def test_skipped_from_a_later_start(self, room: Room, start: int) -> None:
        data = Data.of(23, bad=(2, 6, 8, 9))
        check_whole(room.open(data, on_error="skip"), room, data, 4, start)

    @pytest.mark.parametrize("bad", [1, 4, 6, 22])
    def test_failing_after_the_rows_before(self, room: Room, bad: int) -> None:
        data = Data.of(23, bad=(bad,))
        check_failure(room, data, bad, "fail")

    def test_failing_on_the_first_row(self, room: Room) -> None:
        source = room.open(Data.of(23, bad=(0,)))
        with pytest.raises(DataError, match=r"^row 0 \(id "):
            list(source.batches(4))
        with pytest.raises(DataError, match=r"^row 0 \(id "):
            source.peek(3)

    def test_peek_stops_before_the_bad_row_or_skips_it(self, room: Room) -> None:
        data = Data.of(23, bad=(2,))
        assert len(room.open(data).peek(5)) == 2
        batch = room.open(data, on_error="skip").peek(5)
        assert len(batch) == 5
        check_batch(batch, room, data)

    def test_fingerprint_counts_what_cannot_be_read(self, room: Room) -> None:
        good, bad = Data.of(12), Data.of(12, bad=(11,))
        prints = {room.open(d, on_error="skip").fingerprint() for d in (good, bad, bad)}
        assert len(prints) == 2


def check_failure(room: Room, data: Data, bad: int, on_error: str) -> None:
    batches = room.open(data, on_error=on_error).batches(4)
    position = 0
    ids = room.kind.ids(data)
    while position < bad:
        batch = next(batches)
        assert batch.start == position
        check_batch(batch, room, data)
        position = batch.stop
    assert position == bad, "a row that cannot be read was given"
    with pytest.raises(DataError) as caught:
        next(batches)
    assert caught.value.position == bad
    assert str(caught.value).startswith(f"row {bad} (id {ids[bad]!r}): ")
    assert isinstance(caught.value.__cause__, Exception)


@pytest.mark.parametrize("name", ENDING)
@pytest.mark.parametrize("on_error", ["fail", "skip", "record"])
@pytest.mark.parametrize("bad", [1, 6, 8, 18])
def test_a_stream_that_fails_cannot_go_on(name: str, on_error: str, bad: int, tmp_path: Path) -> None:
    room = Room(KINDS[name], tmp_path)
    data = Data.of(23, bad=(bad,))
    check_failure(room, data, bad, on_error)
    with pytest.raises(DataError, match="cannot go on, whatever on_error= says"):
        list(room.open(data, on_error=on_error).batches(4))


def test_fingerprints_are_equal_in_another_process() -> None:
    program = (
        "import numpy as np; from fo_onnx.sources import open_source; from fo_onnx.options import DataOptions\n"
        "x = np.arange(60, dtype=np.float32).reshape(20, 3)\n"
        "print(open_source((x, np.arange(20)), DataOptions(ids=[str(i) for i in range(20)])).fingerprint())"
    )
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
        found.add(run.stdout)
    assert len(found) == 1


# --- the suite can fail


class Mutant:
    """A source that is wrong on purpose."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


class ShiftsRows(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for b in self.source.batches(size, start):
            yield dataclasses.replace(b, inputs={k: np.roll(a, 1, axis=0) for k, a in b.inputs.items()})


class ShiftsLabels(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for b in self.source.batches(size, start):
            yield dataclasses.replace(b, labels=np.roll(b.labels, 1))


class RepeatsABatch(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for i, b in enumerate(self.source.batches(size, start)):
            yield b
            if i == 1:
                yield b


class RepeatsContents(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        first = None
        for b in self.source.batches(size, start):
            first = first or b
            yield dataclasses.replace(b, inputs={k: a[: len(b)] for k, a in first.inputs.items()})


class LosesTheRest(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return (b for b in self.source.batches(size, start) if len(b) == size)


class CutsFromStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for begin in range(start, 23, size):
            yield self.source._batch(begin, min(begin + size, 23))


class IgnoresStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return self.source.batches(size)


class NumbersFromStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return (dataclasses.replace(b, ids=b.ids - start) for b in self.source.batches(size, start))


class EatsWhatItShows(Mutant):
    eaten = 0

    def peek(self, n: int) -> Batch:
        self.eaten += n
        return self.source.peek(n)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return self.source.batches(size, max(start, self.eaten))


class KnowsOneFingerprint(Mutant):
    def fingerprint(self) -> str:
        return "the same"


class FingerprintsAtRandom(Mutant):
    def fingerprint(self) -> str:
        return str(np.random.default_rng().integers(1 << 60))


@pytest.fixture
def pair(tmp_path: Path) -> Room:
    return Room(KINDS["tuple of arrays"], tmp_path)


@pytest.mark.parametrize("mutant", [None, ShiftsRows, ShiftsLabels, RepeatsABatch, RepeatsContents, LosesTheRest])
def test_the_check_of_all_rows_can_fail(mutant: type[Mutant] | None, pair: Room) -> None:
    data = Data.of(23)
    source = pair.open(data)
    if mutant is None:
        check_whole(source, pair, data, 4)
        return
    with pytest.raises(AssertionError):
        check_whole(mutant(source), pair, data, 4)


@pytest.mark.parametrize("mutant", [CutsFromStart, IgnoresStart, NumbersFromStart])
def test_the_check_of_a_later_start_can_fail(mutant: type[Mutant], pair: Room) -> None:
    data = Data.of(23)
    with pytest.raises(AssertionError):
        check_whole(mutant(pair.open(data)), pair, data, 4, 5)


def test_the_check_of_peeking_can_fail(pair: Room) -> None:
    data = Data.of(23)
    with pytest.raises(AssertionError):
        check_peek(EatsWhatItShows(pair.open(data)), pair, data)


@pytest.mark.parametrize("mutant", [KnowsOneFingerprint, FingerprintsAtRandom])
def test_the_check_of_fingerprints_can_fail(mutant: type[Mutant], pair: Room) -> None:
    with pytest.raises(AssertionError):
        check_fingerprint(lambda d: mutant(pair.open(d)), Data.of(23))
