from __future__ import annotations

import copy
import gc
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fo_onnx as fo
from fo_onnx.distributions import Distributions
from fo_onnx.distributions import columns as columns_module
from fo_onnx.distributions.columns import COLUMNS, ArrayRows, Columns
from fo_onnx.distributions.ids import normalise_ids
from fo_onnx.distributions.probabilities import invalid_rows
from fo_onnx.errors import DataError, OutputError, RowNotFoundError, StoreError


def some_probs(n=20, k=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.4), n).astype(np.float32)


class Counting(ArrayRows):
    """Rows like those of a file: they say that reading costs something, and count how much is read."""

    in_memory = False

    def __init__(self, *args, step=8, **kwargs):
        super().__init__(*args, **kwargs)
        self.step = step
        self.reads: list[tuple[int, int, tuple[str, ...]]] = []

    def read(self, start, stop, columns=COLUMNS):
        self.reads.append((start, stop, tuple(columns)))
        return super().read(start, stop, columns)


def test_a_mapping_over_ids():
    probs = some_probs()
    ids = [f"img_{i}.png" for i in range(20)]
    d = Distributions(probs, ids=ids)
    assert len(d) == 20
    assert list(d) == ids
    assert "img_3.png" in d
    assert 3 not in d
    assert np.array_equal(d["img_3.png"], probs[3])
    assert d["img_3.png"].dtype == np.float32
    assert {key: row.tolist() for key, row in dict(d).items()} == d.to_dict()
    assert dict(d).keys() == set(ids)


def test_default_ids_are_positions():
    d = Distributions(some_probs())
    assert list(d) == list(range(20))
    assert np.array_equal(d.ids, np.arange(20))
    assert d.ids.dtype == np.int64
    assert np.int64(7) in d
    assert True not in d
    assert -1 not in d
    assert 20 not in d
    assert 10**30 not in d


@pytest.mark.parametrize("ids", [[30, 10, 20, 0], [5, 6, 7, 8], [-3, 2**62, 4, 9]])
def test_other_integers_normalise_ids(ids):
    probs = some_probs(4)
    d = Distributions(probs, ids=ids)
    for position, i in enumerate(ids):
        assert np.array_equal(d[i], probs[position])
    assert 1000 not in d
    assert d.ids.tolist() == ids


@pytest.mark.parametrize(
    ("ids", "key", "hint"),
    [
        (None, 99, "Its ids are integers, from 0 to 19 in order"),
        (None, "3", "Its ids are integers"),
        ([f"s{i}" for i in range(20)], 3, "Its ids are text, from 's0' to 's19'"),
    ],
)
def test_an_id_that_is_not_there(ids, key, hint):
    d = Distributions(some_probs(), ids=ids)
    with pytest.raises(RowNotFoundError, match=hint) as caught:
        d[key]
    assert repr(key) in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_a_row_is_a_copy():
    d = Distributions(some_probs())
    row = d[0]
    row[:] = 0
    assert d[0].sum() == pytest.approx(1)


def test_rows_by_position():
    d = Distributions(some_probs(), ids=[f"{i:03d}" for i in range(20)], labels=np.arange(20) % 4)
    part = d.slice(5, 9)
    assert list(part) == ["005", "006", "007", "008"]
    assert np.array_equal(part.probs, d.probs[5:9])
    assert np.array_equal(part.labels, d.labels[5:9])
    assert np.array_equal(part["007"], d["007"])
    assert len(d.slice(-3)) == 3
    assert len(d.slice(15, 99)) == 5
    assert len(d.slice(9, 5)) == 0
    assert list(d.slice(2, 10).slice(1, 3)) == ["003", "004"]


def test_rows_by_position_of_default_ids_keep_their_ids():
    part = Distributions(some_probs()).slice(5, 9)
    assert list(part) == [5, 6, 7, 8]
    assert np.array_equal(part[8], some_probs()[8])
    assert 2 not in part


def test_rows_say_how_many_they_are_in_meta():
    d = Distributions(
        some_probs(), meta={"rows": {"written": 20}, "data": {"length": 20, "x": 1}, "metrics": {"rows": 20}}
    )
    part = d.slice(0, 3)
    assert part.meta["rows"] == {"written": 3, "skipped": 0, "quarantined": 0}
    assert part.meta["data"] == {"length": 3, "x": 1}
    assert part.metrics()["rows"] == 3
    assert d.meta["rows"] == {"written": 20, "skipped": 0, "quarantined": 0}


@pytest.fixture(params=["memory", "parquet", "run folder"])
def generated(request: pytest.FixtureRequest, tmp_path: Path) -> Distributions:
    """50 rows of a run, of which the model is right on all, wherever they lie."""
    x = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
    out = {"memory": None, "parquet": tmp_path / "d.parquet", "run folder": tmp_path / "d"}[request.param]
    return fo.generate(
        lambda rows: rows * 3, (x, x.argmax(1)), ids=[f"id {i}" for i in range(50)], out=out, output="logits",
        keep_logits=True, class_names=["cat", "dog", "emu"], meta={"who": "me"},
    )  # fmt: skip


PARTS = {
    "constructed": lambda d: Distributions(
        d.probs[5:15], ids=d.ids[5:15], labels=d.labels[5:15], logits=d.logits[5:15], meta=d.meta
    ),
    "sliced": lambda d: d.slice(5, 15),
    "masked": lambda d: d.select(np.isin(np.arange(50), np.arange(5, 15))),
    "by ids": lambda d: d.select(d.ids[5:15]),
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_a_part_is_described_by_its_own_numbers(generated: Distributions, make, tmp_path: Path) -> None:
    generated.metrics()  # leaves those of the whole in meta
    generated.meta |= {"complete": False, "digest": {"rows": "ab", "meta": "cd"}}
    part = make(generated)
    assert part.equals(generated.slice(5, 15))
    wrong = Distributions(part.probs, ids=part.ids, labels=(part.labels + 1) % 3, meta=part.meta)
    assert (part.metrics()["accuracy"], wrong.metrics()["accuracy"]) == (1, 0)
    alone = Distributions(part.probs, labels=part.labels).metrics()
    path = fo.save(part, tmp_path / "part.parquet")
    for found in (part, fo.load(path)):
        assert found.metrics() == alone
        assert found.meta["rows"] == {"written": 10, "skipped": 0, "quarantined": 0}
        assert found.meta["data"]["length"] == 10
        assert "identity" not in found.meta
        assert "fingerprint" not in found.meta["data"]
        assert found.meta.get("complete", True) is True
        assert found.meta["model"] == generated.meta["model"]
        assert found.meta["user"] == {"who": "me"}
    assert "digest" not in make(generated).meta
    assert fo.check(path).ok, fo.check(path).problems
    assert generated.metrics()["rows"] == 50


def test_a_part_without_labels_or_logits_says_so(generated: Distributions) -> None:
    part = Distributions(generated.probs, meta=generated.meta)
    assert [part.meta["data"][key] for key in ("id_kind", "labels", "logits", "classes")] == ["int", False, False, 3]
    assert "accuracy" not in part.metrics()


def test_an_aligned_result_has_its_own_counts_of_classes(generated: Distributions) -> None:
    before = generated.metrics()
    aligned = generated.align(["emu", "cat", "dog"])
    assert aligned.metrics()["predicted_classes"] == [before["predicted_classes"][i] for i in (2, 0, 1)]
    assert aligned.metrics()["accuracy"] == 1


def test_metrics_that_are_not_of_these_rows_are_not_given() -> None:
    d = Distributions(some_probs(), labels=np.arange(20) % 4)
    other = Distributions.from_rows(d.source, {"metrics": {"rows": 19}})
    unlabelled = Distributions.from_rows(d.source, {"metrics": {"rows": 20, "confidence": {}}})
    assert other.metrics() == unlabelled.metrics() == d.metrics()


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(20)), taken=st.integers(0, 20), step=st.integers(1, 9))
def test_select_gives_the_rows_of_the_ids_in_their_order(order, taken, step) -> None:
    rows = Distributions(some_probs(), ids=np.arange(20) * 7, labels=np.arange(20) % 4).source
    rows.step = step  # as the row groups of a file
    d, wanted = Distributions.from_rows(rows, {}), order[:taken]
    part = d.select([7 * i for i in wanted])
    assert part.ids.tolist() == list(part) == [7 * i for i in wanted]
    assert np.array_equal(part.probs, some_probs()[wanted])
    assert np.array_equal(part.labels, np.asarray(wanted, int) % 4)
    assert all(np.array_equal(part[7 * i], some_probs()[i]) for i in wanted)
    mask = np.isin(np.arange(20), wanted)
    assert d.select(mask).equals(d.select(np.flatnonzero(mask) * 7))
    assert part.select(part.ids[::-1]).ids.tolist() == part.ids[::-1].tolist()


@pytest.mark.parametrize(
    "chosen",
    [
        [3, 5],
        (3, 5),
        {3: "x", 5: "y"},
        np.array([3, 5], np.uint8),
        [np.int64(3), 5],
        (i for i in (3, 5)),
        [i in (3, 5) for i in range(20)],
        np.array([i in (3, 5) for i in range(20)], object),
        Distributions(some_probs(2), ids=[3, 5]),
    ],
)
def test_select_takes_masks_and_ids_of_every_kind(chosen) -> None:
    assert list(Distributions(some_probs()).select(chosen)) == [3, 5]


@pytest.mark.parametrize("nothing", [[], np.array([]), np.zeros(20, bool)])
def test_select_of_nothing(nothing) -> None:
    part = Distributions(some_probs(), labels=np.arange(20) % 4).select(nothing)
    assert (len(part), part.probs.shape, part.labels.shape, part.ids.shape) == (0, (0, 4), (0,), (0,))
    assert part.metrics()["rows"] == 0


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([3, 99, -1, "a"], "ids must be all integers or all text"),
        ([3, 99, -1], r"there are no rows with the ids 99, -1\. Its ids are integers, from 0 to 19"),
        (["3"], r"there are no rows with the ids '3'\."),
        ([3, 3, 4], "duplicate ids, each may be there once: 3"),
        (np.ones(19, bool), r"a mask of shape \(19,\) was given; one truth value per row, shape \(20,\), was expected"),
        (np.ones((20, 1), bool), r"a mask of shape \(20, 1\)"),
        ([True, False], r"a mask of shape \(2,\)"),
        ("abc", "'abc' was given; a boolean mask"),
        (3, r"3 was given; a boolean mask \(20,\) or several ids were expected\. One row alone is d\[id\]"),
        ([0.5], "ids must be all integers or all text; found 0.5"),
    ],
)
def test_select_refuses_what_is_no_selection(chosen, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Distributions(some_probs()).select(chosen)


def test_an_array_of_distributions_is_their_probs(tmp_path: Path) -> None:
    probs = some_probs()
    d = Distributions(probs, ids=[f"x{i}" for i in range(20)])
    for found in (d, fo.load(fo.save(d, tmp_path / "d.parquet"))):
        assert np.array_equal(np.asarray(found), probs)
        assert np.asarray(found).dtype == np.float32
        assert np.asarray(found) is not np.array(found)
        assert np.array_equal(np.asarray(found, np.float64), probs.astype(np.float64))
        assert np.mean(found) == probs.mean()
        assert np.array_equal(np.max(found, axis=1), probs.max(axis=1))
        assert np.stack([found, found]).shape == np.array([found, found]).shape == (2, 20, 4)
        assert np.concatenate([found, found]).shape == (40, 4)
        assert np.array_equal(np.log1p(found), np.log1p(probs))
        assert (len(found), list(found)[1], "x3" in found) == (20, "x1", True)
        assert np.array_equal(np.asarray(found, copy=False), probs)
        with pytest.raises(ValueError, match="Unable to avoid copy"):
            np.asarray(found, np.float64, copy=False)
    copied = np.array(d)
    copied[:] = 0
    assert np.array_equal(d.probs, probs)
    assert np.asarray(d.slice(0, 0)).shape == (0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [1] * 20}, r"duplicate ids, each may be there once: 1\."),
        ({"ids": ["a", "b"] * 10}, "duplicate ids.*'a', 'b'"),
        ({"ids": [1, 2]}, "20 rows but 2 ids"),
        ({"ids": [1, "a"] * 10}, "all integers or all text; found 1"),
        ({"ids": [1.5] * 20}, "all integers or all text; found 1.5"),
        ({"ids": [True, False] * 10}, "all integers or all text; found True"),
        ({"ids": np.arange(20.0)}, "all integers or all text; found dtype"),
        ({"ids": [2**63, *range(19)]}, "does not fit 64 signed bits"),
        ({"ids": np.array([2**63], dtype=np.uint64)}, "does not fit 64 signed bits"),
        ({"ids": ["\ud800", *map(str, range(19))]}, "no valid Unicode"),
        ({"ids": np.zeros((20, 1), dtype=int)}, "one id per row"),
        ({"labels": [0, 1]}, "20 integers, one per row"),
        ({"labels": [4] * 20}, r"labels from 4 to 4; classes are 0 … 3"),
        ({"labels": [-1] * 20}, "labels from -1 to -1"),
        ({"labels": [0.5] * 20}, "dtype float64"),
        ({"logits": np.zeros((20, 3))}, r"logits of shape \(20, 3\) beside probs of shape \(20, 4\)"),
        ({"probs": np.ones(4)}, r"probs of shape \(4,\)"),
        ({"probs": np.empty((3, 0))}, r"probs of shape \(3, 0\)"),
        ({"probs": np.array([["a"]])}, "numbers of shape"),
    ],
)
def test_arguments_that_do_not_fit(change, message):
    arguments = {"probs": some_probs()} | change
    with pytest.raises(DataError, match=message):
        Distributions(arguments.pop("probs"), **arguments)


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.5, -0.5], [np.nan, 1], [np.inf, -np.inf], [0, 0]])
def test_rows_that_are_no_distribution(row):
    probs = np.array([[0.5, 0.5], row, [1, 0]], dtype=np.float32)
    with pytest.raises(OutputError, match=r"1 of 3 rows are no distribution .*; ids 'b'\."):
        Distributions(probs, ids=["a", "b", "c"])
    assert invalid_rows(probs).tolist() == [1]


def test_quick_and_thorough_validation_agree():
    rng = np.random.default_rng(1)
    for scale in (0, 1e-7, 1e-4, 9e-4, 2e-3, 0.5):
        probs = some_probs(300, 5) * (1 + scale * rng.choice([-1, 1], (300, 1))).astype(np.float32)
        exact = np.flatnonzero(np.abs(probs.astype(np.float64).sum(axis=1) - 1) > 1e-3)
        assert np.array_equal(invalid_rows(probs), exact), scale


def test_nothing_is_read_before_it_is_asked_for():
    rows = Counting(some_probs(100), where="x.parquet")
    d = Distributions.from_rows(rows, {})
    repr(d), len(d), d.classes, d.class_names, d.slice(3, 50)
    assert rows.reads == []
    d[42]
    assert rows.reads
    assert all((start, stop) == (42, 43) for start, stop, _ in rows.reads)


def test_probs_are_decoded_once():
    rows = Counting(some_probs(100))
    d = Distributions.from_rows(rows, {})
    first = d.probs
    read = len(rows.reads)
    assert d.probs is first
    assert np.array_equal(first, some_probs(100))
    d[3]
    assert all(columns != ("probs",) for _, _, columns in rows.reads[read:])


def test_a_large_column_goes_into_a_temporary_file_that_is_gone_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr(columns_module, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(columns_module.tempfile, "tempdir", str(tmp_path))
    d = Distributions.from_rows(Counting(some_probs(100)), {})
    probs = d.probs
    assert isinstance(probs.base, np.memmap)
    assert np.array_equal(probs, some_probs(100))
    del d, probs
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(columns_module, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(columns_module.os, "posix_fallocate", full)


def test_a_full_disk_is_an_error_and_no_signal(full_disk):
    with pytest.raises(OSError, match="No space left"):
        _ = Distributions.from_rows(Counting(some_probs(100)), {}).probs


@pytest.mark.parametrize("ask", [lambda d: d.probs, lambda d: d[11], lambda d: d.metrics(), lambda d: d.to_dict()])
@pytest.mark.parametrize("kind", [ArrayRows, Counting])
def test_rows_of_a_file_are_checked_as_they_are_read(kind, ask):
    probs = some_probs(30)
    probs[11] *= 2
    d = Distributions.from_rows(kind(probs, where="x.npz"), {})
    with pytest.raises(StoreError, match=r"Reading x\.npz: rows that are no distribution .*; ids 11"):
        ask(d)


@pytest.mark.parametrize("first", [0, -7, 2**63 - 20])
def test_consecutive_ids_are_not_decoded(first, full_disk):
    d = Distributions.from_rows(Counting(some_probs(), np.arange(20) + first), {})
    ids = [first + i for i in range(20)]
    assert d.ids.tolist() == list(d) == ids
    assert first - 1 not in d
    assert d.get(first + 20) is None
    assert list(d.select([first + 9, first + 4])) == [first + 9, first + 4]
    assert np.array_equal(d[first + 11], some_probs()[11])


def test_writing_into_ids_does_not_change_the_result():
    d = Distributions(some_probs())
    d.ids[:] = 7
    assert d.ids.tolist() == list(d) == list(range(20))
    for ids in (np.arange(20) * 2, np.array([f"a{i}" for i in range(20)], dtype=object)):
        d = Distributions(some_probs(), ids=ids)
        with pytest.raises(ValueError, match="read-only"):
            d.ids[0] = ids[1]
        assert d.ids.tolist() == list(d) == ids.tolist()
        assert ids.flags.writeable


@pytest.mark.parametrize("ids", [None, [f"a{i}" for i in range(100)], np.arange(100)[::-1]])
def test_ids_that_are_known_are_not_read_again(ids):
    rows = Counting(some_probs(100), None if ids is None else normalise_ids(ids, "t"))
    d = Distributions.from_rows(rows, {})
    expected = d.ids.tolist()
    rows.reads.clear()
    assert list(d) == list(d.keys()) == expected
    assert expected[99] in d
    assert "other" not in d
    assert rows.reads == []


def test_duplicate_ids_of_a_file():
    ids = np.array([3, 4, 5, 3])
    d = Distributions.from_rows(Counting(some_probs(4), ids, where="x.npz", step=2), {})
    with pytest.raises(StoreError, match=r"Reading x\.npz: duplicate ids, each may be there once: 3\."):
        _ = d.ids


def test_metrics_are_taken_from_meta_or_computed():
    d = Distributions(some_probs(), labels=some_probs().argmax(axis=1))
    assert d.metrics()["accuracy"] == 1
    assert "accuracy" not in Distributions(some_probs()).metrics()
    rows = Counting(some_probs())
    kept = Distributions.from_rows(rows, {"metrics": {"rows": 20, "accuracy": 0.5}})
    found = kept.metrics()
    assert found["accuracy"] == 0.5
    assert rows.reads == []
    found["accuracy"] = 1
    assert kept.metrics()["accuracy"] == 0.5


def test_align_orders_columns_logits_and_labels_by_name():
    probs = some_probs(50, 3)
    d = Distributions(
        probs, labels=probs.argmax(axis=1), logits=np.log(probs), meta={"model": {"class_names": ["cat", "dog", "emu"]}}
    )
    a = d.align(["emu", "cat", "dog"])
    assert a.class_names == ("emu", "cat", "dog")
    assert np.array_equal(a.probs, probs[:, [2, 0, 1]])
    assert np.array_equal(a.logits, np.log(probs)[:, [2, 0, 1]])
    assert a.metrics()["accuracy"] == 1
    assert np.array_equal(a[7], probs[7, [2, 0, 1]])
    assert d.class_names == ("cat", "dog", "emu")
    assert a.align(["cat", "dog", "emu"]).equals(d)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "fox"], "Missing here: 'fox'; extra here: 'emu'"),
        (["cat", "dog"], "Missing here: none; extra here: 'emu'"),
        (["cat", "dog", "emu", "cat"], "given twice: 'cat'"),
    ],
)
def test_align_refuses_other_names(names, message):
    d = Distributions(some_probs(4, 3), meta={"model": {"class_names": ["cat", "dog", "emu"]}})
    with pytest.raises(DataError, match=message):
        d.align(names)


def test_align_without_names():
    with pytest.raises(DataError, match="class names are not known"):
        Distributions(some_probs()).align(["a"])


def test_equality_is_identity_and_equals_compares_bits():
    d, same = Distributions(some_probs()), Distributions(some_probs())
    assert d == d
    assert d != same
    assert len({d, same}) == 2
    assert d.equals(same)
    changed = some_probs()
    changed[3, 0] = np.nextafter(changed[3, 0], 1)
    assert not d.equals(Distributions(changed))
    assert not d.equals(Distributions(some_probs(), ids=range(1, 21)))
    assert not d.equals(Distributions(some_probs(), labels=[0] * 20))
    assert not d.equals(d.slice(0, 19))
    a, b = Distributions(some_probs(), labels=[0] * 20), Distributions(some_probs(), labels=[1] * 20)
    assert not a.equals(b)


def test_equals_sees_the_sign_of_zero_and_not_a_number_in_logits():
    logits = np.full((20, 4), np.nan, dtype=np.float32)
    assert Distributions(some_probs(), logits=logits).equals(Distributions(some_probs(), logits=logits.copy()))


def test_repr():
    d = Distributions(some_probs(), labels=[0] * 20)
    assert repr(d) == "Distributions(20 rows × 4 classes, int ids, labels)"


def test_no_rows():
    d = Distributions(np.empty((0, 3)))
    assert len(d) == 0
    assert list(d) == []
    assert d.probs.shape == (0, 3)
    assert d.metrics()["rows"] == 0
    assert 0 not in d
    with pytest.raises(RowNotFoundError, match="It has no rows"):
        d[0]


def test_copies_and_pickles():
    d = Distributions(some_probs(), ids=[f"a{i}" for i in range(20)])
    assert copy.copy(d).equals(d)
    buffer = io.BytesIO()
    pickle.Pickler(buffer).dump(d)
    buffer.seek(0)
    assert pickle.Unpickler(buffer).load().equals(d)


def test_ids_of_every_kind():
    assert normalise_ids(range(3), "t").dtype == np.int64
    assert normalise_ids(np.array(["a", "é"]), "t").tolist() == ["a", "é"]
    assert normalise_ids(np.array([1, 2], dtype=np.uint8), "t").dtype == np.int64
    assert normalise_ids([np.int32(4)], "t").tolist() == [4]
    assert normalise_ids([], "t").shape == (0,)
    assert Columns().ids is None
