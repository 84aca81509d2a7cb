"""Digests of rows: a row's own, whatever batch it is in, and another one for every other row."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.sources.annotations import RowAnnotations
from fo_onnx.sources.fingerprint import fingerprint, row_digests
from fo_onnx.sources.labels import Labels

ROWS = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
KINDS = {
    "float32": ROWS,
    "float64": ROWS.astype(np.float64),
    "images": (np.random.default_rng(1).integers(0, 255, (50, 3, 5, 5))).astype(np.uint8),
    "one number": np.arange(50),
    "one byte": np.arange(50, dtype=np.uint8),
    "two bytes": np.arange(100, dtype=np.uint8).reshape(50, 2),
    "four bytes": ROWS[:, :1],
    "truth": np.random.default_rng(2).integers(0, 2, (50, 70)).astype(bool),
    "text": np.array([f"word {i}" * (i % 3 + 1) for i in range(50)]),
    "objects": np.array([f"word {i}" for i in range(50)], dtype=object)[:, None],
    "bytes": np.array([f"{i}".encode() for i in range(50)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_digest_in_every_batch(kind):
    array = KINDS[kind]
    whole = row_digests({"x": array})
    assert whole.shape == (50,)
    assert whole.dtype == np.uint64
    assert len(np.unique(whole)) == 50
    assert np.array_equal(whole, np.concatenate([row_digests({"x": array[i : i + 1]}) for i in range(50)]))
    assert np.array_equal(whole[20:], row_digests({"x": np.asfortranarray(array[20:])}))


@given(st.integers(0, 49), st.integers(0, 6), st.integers(0, 31))
def test_one_bit_is_seen_and_nothing_else_changes(row, column, bit):
    changed = ROWS.copy()
    changed.view(np.uint32)[row, column] ^= np.uint32(1 << bit)
    before, after = row_digests({"x": ROWS}), row_digests({"x": changed})
    assert np.flatnonzero(before != after).tolist() == [row]


@given(st.permutations(range(7)))
def test_values_that_change_places_are_seen(order):
    same = list(order) == list(range(7))
    assert np.array_equal(row_digests({"x": ROWS}), row_digests({"x": ROWS[:, list(order)]})) == same


def test_signs_that_change_together_are_seen():
    changed = ROWS.copy()
    changed[:, [1, 3]] *= -1
    assert (row_digests({"x": ROWS}) != row_digests({"x": changed})).all()


def test_names_types_and_shapes_count():
    digests = [
        row_digests(inputs)
        for inputs in (
            {"x": ROWS},
            {"y": ROWS},
            {"x": ROWS.astype(np.float64)},
            {"x": ROWS[:, :, None]},
            {"x": ROWS.view(np.int32)},
            {"x": ROWS, "y": ROWS},
            {"x": np.concatenate([ROWS, np.zeros((50, 1), np.float32)], axis=1)},
        )
    ]
    for i, one in enumerate(digests):
        assert all((one != other).all() for other in digests[i + 1 :])
    assert np.array_equal(row_digests({"x": ROWS, "y": ROWS[::-1]}), row_digests({"y": ROWS[::-1], "x": ROWS}))


@pytest.mark.skipif(sys.byteorder == "big", reason="digests are those of one byte order")
def test_digests_stay_what_runs_have_recorded():
    recorded = {"u1": 11786581068815659854, "i2": 3597916051059881876, "f4": 983152417946184978}
    assert {kind: int(row_digests({"x": np.ones(1, kind)})[0]) for kind in recorded} == recorded


def test_the_fingerprint_of_labels_takes_no_memory():
    labels = np.arange(10**6)
    tracemalloc.start()
    prints = {fingerprint(10**6, [], RowAnnotations(None, Labels(values))) for values in (labels, labels[::-1])}
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(prints) == 2
    assert peak_bytes < 1.1 * labels.nbytes  # the second, which is no plain array, is copied


def test_no_row_has_the_digest_0():
    assert (row_digests({"x": np.zeros((3, 0), np.float32)}) > 0).all()
    assert len(row_digests({})) == 0


def test_another_process_gives_the_same():
    program = (
        "import numpy as np; from fo_onnx.sources.fingerprint import row_digests\n"
        "print(row_digests({'x': np.arange(12.0).reshape(3, 4)}).tolist())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(row_digests({"x": np.arange(12.0).reshape(3, 4)}).tolist())
