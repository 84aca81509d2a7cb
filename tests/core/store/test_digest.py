"""Every change of a value, an id, a label or the record is seen by `check`, in every format and in run folders."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.distributions import Distributions
from fo_onnx.distributions.columns import ArrayRows, read_chunks
from fo_onnx.errors import StoreError
from fo_onnx.store import FORMATS, RunFolder, ShardLimits, check, files, load, save
from fo_onnx.store.digest import RowDigest, digest_meta

N, K = 60, 3
RNG = np.random.default_rng(3)
PROBS = RNG.dirichlet(np.full(K, 0.5), N).astype(np.float32)
LOGITS = RNG.normal(size=(N, K)).astype(np.float32)
LABELS = np.arange(N) % K
NAMES = ["cat", "dog", "owl"]
WHOLE = [suffix for suffix, form in FORMATS.items() if form.keeps_everything]
ROWS_CHANGED, META_CHANGED = "values, ids or labels changed", r"the record \(meta\) changed"


def columns(text):
    ids = np.array([f"é{i}" for i in range(N)], dtype=object) if text else np.arange(N) * 7
    return {"probs": PROBS.copy(), "ids": ids, "labels": LABELS.copy(), "logits": LOGITS.copy()}


def swapped(values):
    values[[0, 3]] = values[[3, 0]]


def changed_id(values):
    values[5] = "other" if isinstance(values[5], str) else 10**6


def nudged(values):
    values[7, 1] = np.nextafter(values[7, 1], np.float32(2))


CHANGES = {
    "two rows swapped": ("probs", swapped),
    "a last bit of a probability": ("probs", nudged),
    "an id": ("ids", changed_id),
    "two ids swapped": ("ids", swapped),
    "a label": ("labels", lambda values: values.__setitem__(4, (values[4] + 1) % K)),
    "a last bit of a logit": ("logits", nudged),
}


def write(path, meta, **arrays):
    """A file of these rows beside any meta."""
    with files.work_folder(path, "x") as folder, files.OutputFile(path, "x", temporary=folder / "data.tmp") as file:
        FORMATS[path.suffix].write(ArrayRows(**arrays), meta, file)
    return path


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("text", [False, True], ids=["int ids", "text ids"])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_rows_is_seen(suffix, text, change, tmp_path):
    meta = load(save(Distributions(**columns(text)), tmp_path / f"d{suffix}")).meta
    # Without the metrics, which see some of the changes too.
    del meta["metrics"]
    meta["digest"]["meta"] = digest_meta(meta)
    assert check(write(tmp_path / f"same{suffix}", meta, **columns(text))).problems == []
    arrays = columns(text)
    name, act = CHANGES[change]
    act(arrays[name])
    report = check(write(tmp_path / f"changed{suffix}", meta, **arrays))
    assert [p.split(" after")[0] for p in report.problems] == [ROWS_CHANGED]
    # A file of an older version has no digest: then it is sound.
    del meta["digest"]
    assert check(write(tmp_path / f"older{suffix}", meta, **arrays)).problems == []


def test_every_change_of_an_npy_is_seen(tmp_path):
    path = save(Distributions(PROBS, labels=LABELS), tmp_path / "d.npy")
    assert check(path).ok
    values = np.load(path, mmap_mode="r+")
    values[[0, 3]] = values[[3, 0]]
    values.flush()
    assert any(p.startswith(ROWS_CHANGED) for p in check(path).problems)


@pytest.mark.parametrize("text", [False, True], ids=["int ids", "text ids"])
@pytest.mark.parametrize("change", ["an id", "two ids swapped", "two rows swapped"])
def test_every_change_of_ids_in_an_npy_is_seen(text, change, tmp_path):
    arrays = {name: values for name, values in columns(text).items() if name in ("ids", "probs")}
    path = save(Distributions(**arrays), tmp_path / "d.npy")
    record = path.read_bytes().rpartition(b"\x93NUMPY")[2]
    name, act = CHANGES[change]
    act(arrays[name])
    rows, magic, _ = save(Distributions(**arrays), tmp_path / "other.npy").read_bytes().rpartition(b"\x93NUMPY")
    path.write_bytes(rows + magic + record)
    assert any(p.startswith(ROWS_CHANGED) for p in check(path).problems)


CHANGED_RECORDS = {
    "a class name": lambda meta: meta["model"]["class_names"].__setitem__(0, "cow"),
    "two class names swapped": lambda meta: meta["model"]["class_names"].reverse(),
    "what the user gave": lambda meta: meta["user"].update(a=[1, 2.5]),
    "a new key": lambda meta: meta.update(note="x"),
    "a key less": lambda meta: meta.pop("created"),
    "the digest itself": lambda meta: meta["digest"].update(meta="0" * 64),
    "half of the digest": lambda meta: meta["digest"].pop("meta"),
    "another kind of digest": lambda meta: meta.update(digest="x"),
}


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("change", CHANGED_RECORDS)
def test_every_change_of_the_record_is_seen(suffix, change, tmp_path):
    d = Distributions(PROBS, meta={"model": {"name": "net", "class_names": NAMES}, "user": {"a": [1, 2]}})
    meta = load(save(d, tmp_path / f"d{suffix}")).meta
    CHANGED_RECORDS[change](meta)
    report = check(write(tmp_path / f"e{suffix}", meta, probs=PROBS))
    assert len(report.problems) == 1
    assert "the record (meta) changed" in report.problems[0]


@pytest.mark.parametrize(("old", "new"), [(b'"cat"', b'"cow"'), (b'"a":1', b'"a":2')])
def test_every_change_of_the_record_of_an_npy_is_seen(old, new, tmp_path):
    d = Distributions(PROBS, meta={"model": {"class_names": NAMES}, "user": {"a": 1}})
    path = save(d, tmp_path / "d.npy")
    assert path.read_bytes().count(old) == 1
    path.write_bytes(path.read_bytes().replace(old, new))
    assert [p.split(" changed")[0] for p in check(path).problems] == ["the record (meta)"]


RECORDS = {
    "numpy": {"user": {"a": np.float32(0.1), "b": np.arange(3), "c": np.int64(5)}},
    "not finite": {"user": {"a": math.nan, "b": [math.inf, 1e300, 5e-324, -0.0]}},
    "tuples": {"user": {"a": (1, (2, 3))}, "versions": {"python": "3.11"}},
    "flat keys": {"model": {"name": "net", "framework": "torch"}, "user": {"name": "net", "x": {"y": None}}, "x": {"y": None}},
    "keys of the sections": {"user": {"rows": 5, "digest": "mine", "identity": 3, "complete": 1, "meta": {}}},
    "text": {"user": {"a\0b": "é\u2028\U0001f600\x7f", "": ""}},
    "large": {"user": {"a": 2**63, "b": -(2**63), "c": 2**64 - 1}},
}  # fmt: skip


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
@pytest.mark.parametrize("record", RECORDS)
def test_records_are_sound_however_they_are_written_and_written_again(suffix, record, tmp_path):
    d = Distributions(PROBS, labels=LABELS, meta=RECORDS[record])
    path = save(d, tmp_path / f"d{suffix}")
    assert check(path).problems == []
    for other in [*FORMATS, ""]:
        again = save(load(path), tmp_path / f"from{suffix[1:]}{other}")
        assert check(again).problems == []


@given(st.lists(st.integers(1, 25), min_size=1), st.booleans())
def test_how_rows_are_cut_makes_no_difference(sizes, text):
    arrays = columns(text)
    rows = ArrayRows(arrays["probs"], arrays["ids"], arrays["labels"], arrays["logits"])
    whole, cut = RowDigest(rows.layout), RowDigest(rows.layout)
    whole.update(rows.read(0, N))
    start = 0
    for size in [*sizes, N]:
        stop = min(N, start + size)
        cut.update(rows.read(start, stop))
        start = stop
    assert cut.result() == whole.result()


def test_ids_that_are_one_text_when_joined_are_distinguished():
    results = set()
    for ids in (["ab", "c"], ["a", "bc"], ["abc", ""]):
        rows = ArrayRows(PROBS[:2], np.array(ids, dtype=object))
        digest = RowDigest(rows.layout)
        for part in read_chunks(rows):
            digest.update(part)
        results.add(digest.result())
    assert len(results) == 3


def test_a_record_that_no_reader_would_accept_is_not_written(tmp_path):
    for name in [*FORMATS, ""]:
        with pytest.raises(
            StoreError, match="Writing .*meta.model.class_names is .*different names or null was expected"
        ):
            save(Distributions(PROBS, meta={"model": {"class_names": ["a", "a", "b"]}}), tmp_path / f"d{name}")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- run folders


@pytest.fixture
def folder(tmp_path):
    run = RunFolder.create(
        tmp_path / "d", {}, {}, overwrite=False, limits=ShardLimits(size_bytes=20 * K * 4, group_rows=8)
    )
    sink = run.sink(classes=K, id_kind="int", labels=True, logits=False)
    for start in range(0, N, 10):
        part = slice(start, start + 10)
        sink.append(np.arange(N)[part], PROBS[part], LABELS[part], None)
    sink.commit({"model": {"class_names": NAMES}})
    report = check(tmp_path / "d")
    assert report.problems == []
    assert "digest" in load(tmp_path / "d").meta
    return tmp_path / "d"


def test_a_manifest_whose_meta_was_edited_is_seen(folder):
    path = folder / "manifest.json"
    table = json.loads(path.read_text())
    table["meta"]["model"]["class_names"].reverse()
    path.write_text(json.dumps(table))
    assert any("the record (meta) changed" in p for p in check(folder).problems)


def test_a_journal_that_lost_its_end_is_seen(folder):
    (folder / "manifest.json").unlink()
    journal = folder / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert any(
        "data holds shards that the journal does not name: 'part-000000000040.parquet'" in p
        for p in check(folder).problems
    )


def test_a_shard_that_nobody_names_is_seen(folder):
    shard = next((folder / "data").iterdir())
    (folder / "data" / "part-000000009999.parquet").write_bytes(shard.read_bytes())
    assert any("does not name: 'part-000000009999.parquet'" in p for p in check(folder).problems)


def test_shards_that_took_each_others_place_are_seen(folder):
    first, second = sorted((folder / "data").iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert not check(folder).ok
