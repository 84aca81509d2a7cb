"""Two contracts: what every `Sink` does, and what every format keeps. A new one joins by an entry in SINKS or FORMATS."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fo_onnx.contracts.batch import BadRow
from fo_onnx.distributions import Distributions
from fo_onnx.errors import StoreError, StoreExistsError
from fo_onnx.store import FORMATS, MemorySink, RunFolder, ShardLimits, check, load, save

# ---------------------------------------------------------------------------------------------------------------- sinks


@dataclass
class Made:
    sink: object
    result: Callable[[], Distributions]


def make_memory(folder: Path, length, **columns) -> Made:
    sink = MemorySink(length, **columns)
    return Made(sink, sink.distributions)


def make_folder_sink(name: str):
    def make(folder: Path, length, **columns) -> Made:
        run = RunFolder.create(
            folder / name, {}, {}, overwrite=False, limits=ShardLimits(size_bytes=2000, group_rows=16)
        )
        sink = run.sink(**columns)
        return Made(sink, lambda: load(folder / name))

    return make


SINKS = {
    "memory, length known": make_memory,
    "memory, length unknown": lambda folder, length, **columns: make_memory(folder, None, **columns),
    **{
        f"run folder to {name}": make_folder_sink(name)
        for name in ("x.parquet", "x.json", "x.npz", "x.safetensors", "x")
    },
}


@pytest.fixture(params=SINKS, ids=SINKS)
def make(request, tmp_path):
    def made(length=100, classes=3, id_kind="int", labels=False, logits=False):
        return SINKS[request.param](tmp_path, length, classes=classes, id_kind=id_kind, labels=labels, logits=logits)

    return made


def rows(n, k=3, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.3), n).astype(np.float32)
    return np.arange(n), probs, rng.integers(0, k, n), rng.normal(size=(n, k)).astype(np.float32)


def feed(sink, ids, probs, labels=None, logits=None, sizes=(7, 1, 30)):
    start, i = 0, 0
    while start < len(probs):
        part = slice(start, start + sizes[i % len(sizes)])
        sink.append(
            ids[part], probs[part], None if labels is None else labels[part], None if logits is None else logits[part]
        )
        start, i = part.stop, i + 1


@pytest.mark.parametrize("id_kind", ["int", "str", "shuffled"])
def test_what_goes_in_comes_out_in_every_bit(make, id_kind):
    ids, probs, labels, logits = rows(500)
    ids = {"int": ids, "str": np.array([f"é{i}" for i in ids], dtype=object), "shuffled": ids[::-1] * 3 - 50}[id_kind]
    made = make(500, id_kind="str" if id_kind == "str" else "int", labels=True, logits=True)
    feed(made.sink, ids, probs, labels, logits)
    made.sink.commit({"user": {"a": 1}})
    found = made.result()
    assert found.equals(Distributions(probs, ids=ids, labels=labels, logits=logits))
    assert found.meta["user"] == {"a": 1}
    assert found.metrics()["rows"] == 500
    assert made.sink.written == 500


def test_the_caller_may_use_its_arrays_again(make):
    ids, probs, labels, _ = rows(40)
    made = make(40, labels=True)
    own = [np.empty_like(a[:10]) for a in (ids, probs, labels)]
    for start in range(0, 40, 10):
        for mine, given_ in zip(own, (ids, probs, labels), strict=True):
            mine[:] = given_[start : start + 10]
        made.sink.append(*own, None)
        for mine in own:
            mine[:] = 0
    made.sink.commit({})
    assert made.result().equals(Distributions(probs, labels=labels))


def test_no_rows_at_all(make):
    made = make(0, classes=4)
    made.sink.commit({})
    found = made.result()
    assert found.probs.shape == (0, 4)
    assert found.metrics()["rows"] == 0


def test_more_and_fewer_rows_than_announced(make):
    ids, probs, _, _ = rows(250)
    made = make(100)
    feed(made.sink, ids, probs)
    made.sink.commit({})
    assert made.result().equals(Distributions(probs))


def test_bad_rows_are_counted(make):
    ids, probs, _, _ = rows(20)
    made = make(22)
    made.sink.append(ids[:5], probs[:5], None, None, [BadRow(5, 5, "torn")])
    made.sink.append(ids[6:6], probs[6:6], None, None, [BadRow(6, 6, "torn")])
    made.sink.append(ids[7:], probs[7:], None, None)
    made.sink.commit({})
    assert (made.sink.written, made.sink.bad_rows) == (18, 2)
    assert made.result().ids.tolist() == [0, 1, 2, 3, 4, *range(7, 20)]


@pytest.mark.parametrize(
    ("first", "second", "doubled"),
    [
        ([0, 1, 2, 3], [3, 4, 5, 6], "3"),
        ([0, 1, 2, 3], [7, 8, 8, 9], "8"),
        ([9, 8, 7, 6], [5, 4, 9, 3], "9"),
        (["a", "b", "c", "d"], ["e", "f", "a", "g"], "'a'"),
    ],
)
def test_an_id_twice(make, first, second, doubled):
    _, probs, _, _ = rows(4)
    made = make(id_kind="str" if isinstance(first[0], str) else "int")
    dtype = object if isinstance(first[0], str) else np.int64
    made.sink.append(np.array(first, dtype=dtype), probs, None, None)
    with pytest.raises(StoreError, match=rf"duplicate ids, each may be there once: {doubled}\."):
        made.sink.append(np.array(second, dtype=dtype), probs, None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, p, y, z: (i, p.astype(np.float64), y, z), r"probs are float64 of shape \(10, 3\); float32"),
        (lambda i, p, y, z: (i, p[:, :2], y, z), r"float32 of shape \(n, 3\) was expected"),
        (lambda i, p, y, z: (i, p.tolist(), y, z), "probs are a list"),
        (lambda i, p, y, z: (i[:9], p, y, z), "10 rows came with 9 ids"),
        (lambda i, p, y, z: (i.astype(str), p, y, z), "ids of kind 'int' were expected"),
        (lambda i, p, y, z: (i.astype(float), p, y, z), "all integers or all text"),
        (lambda i, p, y, z: (i, p, None, z), "labels did not come"),
        (lambda i, p, y, z: (i, p, y, None), "logits did not come"),
        (lambda i, p, y, z: (i, p, y[:3], z), r"labels are int64 of shape \(3,\)"),
        (lambda i, p, y, z: (i, p, y.astype(np.int32), z), "labels are int32"),
        (lambda i, p, y, z: (i, p, np.full(10, 3), z), r"labels that are no class, classes are 0 … 2: 3"),
        (lambda i, p, y, z: (i, p, np.full(10, -1), z), r"labels that are no class, classes are 0 … 2: -1"),
        (lambda i, p, y, z: (i, p, y, z.astype(np.float16)), "logits are float16"),
    ],
)
def test_appends_that_do_not_fit(make, change, message):
    made = make(labels=True, logits=True)
    with pytest.raises(StoreError, match=message):
        made.sink.append(*change(*rows(10)))
    # Nothing was taken, so that the right rows still fit.
    made.sink.append(*rows(10))
    assert made.sink.written == 10


def test_nothing_after_the_end(make):
    made = make()
    ids, probs, _, _ = rows(10)
    made.sink.append(ids, probs, None, None)
    made.sink.commit({})
    with pytest.raises(StoreError, match="ended already"):
        made.sink.append(ids + 10, probs, None, None)


# -------------------------------------------------------------------------------------------------------------- formats

WHOLE = [suffix for suffix, form in FORMATS.items() if form.keeps_everything] + [""]
"""Suffixes of what keeps everything; no suffix is a run folder."""

TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["007", "7", "-0", "a],", 'q"],"', "\n", "\\", "é", "日本", "🦆", "", "__proto__", "a b", "}}", "1e5"]
    ),
)
IDS = st.one_of(
    st.none(),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=12, max_size=12, unique=True),
    st.lists(TEXT, min_size=12, max_size=12, unique=True),
)


@st.composite
def distributions(draw):
    n, k = draw(st.integers(0, 12)), draw(st.integers(1, 5))
    parts = draw(hnp.arrays(np.float32, (n, k), elements=st.floats(0, 1, width=32, allow_subnormal=True)))
    largest = parts.argmax(axis=1) if n else np.empty(0, dtype=int)
    # The largest entry takes what the others leave; those stay as drawn, subnormals included.
    parts = np.where(parts * k > 1, np.float32(1 / k), parts).astype(np.float32)
    parts[np.arange(n), largest] = 0
    parts[np.arange(n), largest] = 1 - parts.astype(np.float64).sum(axis=1)
    ids = draw(IDS)
    labels = draw(st.one_of(st.none(), hnp.arrays(np.int64, n, elements=st.integers(0, k - 1))))
    logits = draw(st.one_of(st.none(), hnp.arrays(np.float32, (n, k), elements=st.floats(width=32, allow_nan=False))))
    names = draw(st.one_of(st.none(), st.lists(st.text(max_size=5), min_size=k, max_size=k, unique=True)))
    user = draw(
        st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-5, 5), st.text(max_size=5), st.none()), max_size=3)
    )
    meta = {
        "model": {"name": draw(st.sampled_from([None, "net"])), "framework": None, "class_names": names},
        "user": user,
    }
    return Distributions(parts, ids=None if ids is None else ids[:n], labels=labels, logits=logits, meta=meta)


@pytest.mark.parametrize("suffix", WHOLE)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(d=distributions())
def test_every_format_keeps_every_bit(suffix, tmp_path, d):
    path = tmp_path / f"d{suffix}"
    if suffix == ".npz" and d.id_kind == "str" and any(i.endswith("\0") for i in d):
        with pytest.raises(StoreError, match="NUL at the end of the id"):
            save(d, path, overwrite=True)
        return
    save(d, path, overwrite=True)
    found = load(path)
    assert found.equals(d)
    assert found.probs.tobytes() == d.probs.tobytes()
    assert found.ids.dtype == d.ids.dtype
    assert list(found) == list(d)
    assert found.class_names == d.class_names
    assert found.meta["user"] == d.meta["user"]
    assert found.meta["model"] == d.meta["model"]
    assert found.meta["schema"] == 1
    assert found.metrics() == d.metrics()
    report = check(path)
    assert report.ok, report.problems
    assert report.rows == len(d)


@pytest.mark.parametrize("suffix", WHOLE)
def test_meta_is_the_same_from_every_format(suffix, tmp_path):
    meta = {
        "model": {"name": "net", "framework": "torch", "class_names": ["a", "b"]},
        "user": {"framework": "mine", "note": "x", "schema": 99, "model": "shadow"},
        "timing": {"total_s": 1.5},
    }
    d = Distributions([[0.5, 0.5]], meta=meta)
    found = load(save(d, tmp_path / f"d{suffix}")).meta
    for section, value in meta.items():
        assert found[section] == value
    assert found["data"] == {"length": 1, "id_kind": "int", "labels": False, "logits": False, "classes": 2}
    assert found["rows"] == {"written": 1, "skipped": 0, "quarantined": 0}
    assert not {"model_name", "framework", "note"} & found.keys()


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_many_rows_cross_every_border(suffix, tmp_path):
    ids, probs, labels, _ = rows(40_000, 3)
    d = Distributions(probs, ids=ids * 7, labels=labels)
    found = load(save(d, tmp_path / f"d{suffix}"))
    assert np.array_equal(found.probs, probs)
    assert found.equals(d if suffix != ".npy" else Distributions(probs, ids=ids * 7))
    for position in (0, 16_383, 16_384, 39_999):
        assert np.array_equal(load(tmp_path / f"d{suffix}")[position * 7], probs[position])


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_a_file_that_is_there_is_refused_and_replaced_only_on_request(suffix, tmp_path):
    first, second = Distributions([[0.5, 0.5]]), Distributions([[1, 0]])
    path = save(first, tmp_path / f"d{suffix}")
    with pytest.raises(StoreExistsError, match="overwrite=True"):
        save(second, path)
    assert load(path)[0].tolist() == [0.5, 0.5]
    save(second, path, overwrite=True)
    assert load(path)[0].tolist() == [1, 0]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_a_file_can_be_replaced_by_what_was_loaded_from_it(suffix, tmp_path):
    _, probs, _, _ = rows(1000)
    path = save(Distributions(probs), tmp_path / f"d{suffix}")
    save(load(path), path, overwrite=True)
    assert np.array_equal(load(path).probs, probs)


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_every_format_becomes_every_other(suffix, tmp_path):
    _, probs, labels, _ = rows(100)
    first = save(Distributions(probs, labels=labels), tmp_path / f"d{suffix}")
    for other in WHOLE:
        found = load(save(load(first), tmp_path / f"e{other}"))
        assert np.array_equal(found.probs, probs)
        assert found.labels is None if suffix == ".npy" else np.array_equal(found.labels, labels)


@pytest.mark.parametrize("suffix", [s for s in FORMATS if s != ".json"])
def test_probs_of_a_loaded_file_can_be_changed_without_changing_the_file(suffix, tmp_path):
    path = save(Distributions([[0.5, 0.5]]), tmp_path / f"d{suffix}")
    probs = load(path).probs
    probs[:] = 0
    assert load(path).probs.tolist() == [[0.5, 0.5]]


def test_numpy_reads_npz_and_npy_without_unpickling(tmp_path):
    d = Distributions([[0.5, 0.5], [1, 0]], ids=["a", "é"], labels=[0, 1])
    with np.load(save(d, tmp_path / "d.npz"), allow_pickle=False) as found:
        assert found["ids"].tolist() == ["a", "é"]
        assert found["probs"].dtype == np.float32
        assert found["labels"].tolist() == [0, 1]
        assert '"schema":1' in str(found["meta"])
    assert np.load(save(d, tmp_path / "d.npy"), allow_pickle=False).tolist() == [[0.5, 0.5], [1, 0]]
    with zipfile.ZipFile(tmp_path / "d.npz") as archive:
        assert archive.testzip() is None


def test_safetensors_own_package_reads_it(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    ids, probs, labels, logits = rows(77)
    path = save(Distributions(probs, ids=ids + 5, labels=labels, logits=logits), tmp_path / "d.safetensors")
    found = load_file(path)
    assert np.array_equal(found["ids"], ids + 5)
    assert np.array_equal(found["probs"], probs)
    assert np.array_equal(found["labels"], labels)
    assert np.array_equal(found["logits"], logits)
    with safe_open(path, "numpy") as file:
        assert '"schema":1' in file.metadata()["fo_onnx"]
