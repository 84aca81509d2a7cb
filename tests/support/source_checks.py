"""What every source must do.

Every check is a function of freshly opened sources and of the truth about their rows, so that it can also be run
against sources that are wrong on purpose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from source_kinds import Data, Room

from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.fingerprint import row_digests


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
    assert isinstance(source.is_sliced, bool)
    assert isinstance(source.sequential, bool)
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


def check_annotations(source: Source, room: Room, data: Data) -> None:
    """What is known of rows without reading them is what reading them gives."""
    labels = room.labels(data)
    for start, stop in ((0, 5), (3, 4), (10, len(data.x)), (7, 7)):
        ids, known = source.annotations(start, stop)
        assert ids.tolist() == room.kind.ids(data)[start:stop]
        assert len(ids) == stop - start
        if known is not None:
            assert labels is not None, "labels of data without any"
            assert known.tolist() == labels[start:stop].tolist()


def check_digests(open_: Callable[[Data], Source], data: Data) -> None:
    """The digest of a row is its own, whatever batch it is in, and changes with it."""
    digests = [_digests_of(open_(data), size) for size in (1, 4, len(data.x))]
    assert all(np.array_equal(digests[0], other) for other in digests[1:])
    assert len(np.unique(digests[0])) == len(np.unique(data.x, axis=0))
    changed = data.x.copy()
    changed[5, 0] += 1
    now = _digests_of(open_(dataclasses.replace(data, x=changed)), 4)
    assert np.flatnonzero(now != digests[0]).tolist() == [5]


def _digests_of(source: Source, size: int) -> np.ndarray:
    return np.concatenate([row_digests(batch.inputs) for batch in source.batches(size)])
