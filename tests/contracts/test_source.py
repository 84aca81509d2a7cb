"""The contract of sources: rows, order, borders of batches, ids, labels and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from source_checks import check_annotations, check_digests, check_facts, check_fingerprint, check_peek, check_whole
from source_kinds import KINDS, Data, Room, open_images

from fo_onnx.errors import DataError

SIZES = (1, 3, 4, 7, 16, 23, 24, 100)


@pytest.fixture(params=list(KINDS))
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Room:
    return Room(KINDS[request.param], tmp_path)


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


def test_annotations(room: Room) -> None:
    data = Data.of(23)
    check_annotations(room.open(data), room, data)


def test_digests_of_rows(room: Room) -> None:
    check_digests(room.open, Data.of(23))


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


def test_fingerprints_are_equal_in_another_process() -> None:
    program = (
        "import numpy as np; from fo_onnx.sources import open_source; from fo_onnx.contracts.options import DataOptions\n"
        "x = np.arange(60, dtype=np.float32).reshape(20, 3)\n"
        "print(open_source((x, np.arange(20)), DataOptions(ids=[str(i) for i in range(20)])).fingerprint())"
    )
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env)
        found.add(run.stdout)
    assert len(found) == 1
