"""Generators and loaders: peeking, cutting anew, one pass only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source


class Loader:
    """Gives batches, and counts them as its length."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        self.passes = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches)


def padded(lengths: list[int], widths: list[int]) -> list[np.ndarray]:
    return [np.full((n, w), i) for i, (n, w) in enumerate(zip(lengths, widths, strict=True))]


def cuts(data: Any, size: int, start: int = 0) -> list[tuple[int, int]]:
    return [(b.start, b.stop) for b in open_source(data, DataOptions()).batches(size, start)]


def test_batches_of_unequal_shape_are_cut_there() -> None:
    data = padded([5, 5, 5, 2], [3, 3, 4, 4])
    source = open_source(iter(data), DataOptions())
    batches = list(source.batches(4))
    assert [b.inputs["0"].shape for b in batches] == [(4, 3), (4, 3), (2, 3), (2, 4), (4, 4), (1, 4)]
    assert cuts(iter(data), 100) == [(0, 10), (10, 17)]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 2)), max_size=8), st.integers(1, 7), st.data())
def test_borders_depend_on_the_size_alone(parts: list[tuple[int, int]], size: int, data: st.DataObject) -> None:
    batches = padded([n for n, _ in parts], [w for _, w in parts])
    total = sum(n for n, _ in parts)
    whole = cuts(batches, size) if not batches else cuts(Loader(batches), size)
    start = data.draw(st.integers(0, total))
    rest = cuts(Loader(batches), size, start)
    assert rest == [(max(a, start), b) for a, b in whole if b > start]
    assert sum(b - a for a, b in whole) == total


def test_samples_of_unequal_shape_are_an_error() -> None:
    batches = open_source((np.zeros(2 + (i == 3)) for i in range(6)), DataOptions()).batches(5)
    assert len(next(batches)) == 3
    with pytest.raises(
        DataError, match=r"row 3 \(id 3\) has the shape \(3,\) where the others have \(2,\) \(ragged rows\)"
    ):
        next(batches)


def test_a_loader_is_read_once_for_peek_and_pass() -> None:
    loader = Loader(padded([5, 5, 5], [2, 2, 2]))
    source = open_source(loader, DataOptions())
    assert source.length is None
    source.peek(7)
    source.fingerprint()
    assert len(list(source.batches(4))) == 4
    assert loader.passes == 1
    assert len(list(source.batches(4))) == 4
    assert loader.passes == 2


def test_the_length_of_what_gives_samples() -> None:
    loader = Loader([np.zeros(3)] * 5)
    assert open_source(loader, DataOptions()).length == 5
    assert open_source(loader, DataOptions(limit=3)).length == 3


def test_a_generator_is_read_no_further_than_needed() -> None:
    read: list[int] = []

    def rows() -> Iterator[np.ndarray]:
        for i in range(1000):
            read.append(i)
            yield np.full(2, i)

    source = open_source(rows(), DataOptions())
    assert read == []
    source.peek(3)
    assert len(read) == 3
    batches = source.batches(10)
    next(batches)
    assert len(read) <= 20
    source = open_source(rows(), DataOptions(limit=20))
    read.clear()
    assert sum(len(b) for b in source.batches(8)) == 20
    assert len(read) == 20


def test_one_pass_only() -> None:
    source = open_source(iter([np.zeros(2)] * 30), DataOptions())
    list(source.batches(4))
    with pytest.raises(
        DataError, match=r"an iterator that has been read already, and can be read only once\. Make a new"
    ):
        list(source.batches(4))
    assert len(source.peek(16)) == 16
    with pytest.raises(DataError, match=r"the first 20 rows cannot be looked at any more: .* only 16 were kept"):
        source.peek(20)


def test_peeking_further_before_the_pass() -> None:
    source = open_source((np.full(2, i) for i in range(300)), DataOptions())
    assert len(source.peek(256)) == 256
    assert len(source.peek(4)) == 4
    assert [int(r[0]) for b in source.batches(64) for r in b.inputs["0"]] == list(range(300))
    assert len(source.peek(256)) == 256


def test_peek_ends_where_the_shape_changes() -> None:
    source = open_source(Loader(padded([5, 5], [3, 4])), DataOptions())
    assert source.peek(8).inputs["0"].shape == (5, 3)


def test_fingerprint_is_the_same_for_samples_and_batches() -> None:
    x = np.arange(60.0).reshape(20, 3)
    y = np.arange(20)
    samples = open_source(zip(x, y, strict=True), DataOptions())
    batches = open_source(((x[i : i + 3], y[i : i + 3]) for i in range(0, 20, 3)), DataOptions())
    assert samples.fingerprint() == batches.fingerprint()


def test_it_does_not_depend_on_how_far_was_looked() -> None:
    one, two = (open_source((np.full(2, i) for i in range(50)), DataOptions()) for _ in range(2))
    one.peek(40)
    assert one.fingerprint() == two.fingerprint()


def test_what_cannot_even_begin() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no such device")

    with pytest.raises(DataError, match=r"row 0 \(id 0\): OSError: no such device"):
        list(open_source(Broken(), DataOptions()).batches(4))


def test_neither_sample_nor_batch() -> None:
    source = open_source(iter([np.zeros((2, 2))]), DataOptions(signature=InputSignature(("x",), (), (4,))))
    with pytest.raises(
        DataError, match=r"shape \(2, 2\), which is neither a batch nor a sample of the model's input \(x\)"
    ):
        source.peek(1)


def test_a_batch_whose_arrays_differ_in_length() -> None:
    data = [(np.zeros((2, 2)), np.arange(2)), (np.zeros((2, 2)), np.arange(3))]
    batches = open_source(iter(data), DataOptions(on_error="skip")).batches(2)
    next(batches)
    with pytest.raises(DataError, match=r"row 2 \(id 2\): the arrays have unequal numbers of rows: 0 2, labels 3"):
        next(batches)


def test_an_input_getter_for_batches() -> None:
    data = ({"image": np.full((3, 2), i), "meta": "text", "label": np.arange(3)} for i in range(2))
    source = open_source(data, DataOptions(input_getter=lambda b: b["image"]))
    (batch,) = source.batches(10)
    assert batch.inputs["0"][:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2] * 2


def test_an_interrupt_passes() -> None:
    def rows() -> Iterator[np.ndarray]:
        yield np.zeros(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(open_source(rows(), DataOptions(on_error="skip")).batches(4))


def test_ids_run_out_or_are_left_over() -> None:
    batches = open_source((np.zeros(2) for _ in range(10)), DataOptions(ids=list(range(6)))).batches(4)
    assert len(next(batches)) == 4
    with pytest.raises(DataError, match="ids= has 6 entries, but the data have more rows"):
        next(batches)
    source = open_source((np.zeros(2) for _ in range(10)), DataOptions(ids=list(range(20)), limit=10))
    assert sum(len(b) for b in source.batches(4)) == 10


def test_memory_does_not_grow_with_the_rows() -> None:
    import tracemalloc

    source = open_source((np.zeros((1000, 10), np.float32) for _ in range(500)), DataOptions())
    tracemalloc.start()
    try:
        assert sum(len(b) for b in source.batches(256)) == 500_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000, "20 MB went through"
