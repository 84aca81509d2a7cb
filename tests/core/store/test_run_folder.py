"""The run folder: beginning, going on, ending, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fo_onnx as fo
from fo_onnx.contracts.batch import BadRow
from fo_onnx.distributions import Distributions
from fo_onnx.distributions.columns import ArrayRows
from fo_onnx.errors import ResumeError, StoreError, StoreExistsError, StoreNotFoundError
from fo_onnx.runtime import original_rows
from fo_onnx.store import RunFolder, ShardLimits, check, load, save
from fo_onnx.store.run.journal import Journal
from fo_onnx.store.schema import same_json

K, BATCH, N = 3, 10, 200
PROBS = np.random.default_rng(5).dirichlet(np.full(K, 0.3), N).astype(np.float32)
LABELS = np.random.default_rng(6).integers(0, K, N)
SMALL = ShardLimits(size_bytes=500, group_rows=16)
TARGETS = ["x.parquet", "x.json", "x"]
COLUMNS = {"classes": K, "id_kind": "int", "labels": True, "logits": False}


def begin(target, *, overwrite=False, identity=None, settings=None, limits=SMALL):
    return RunFolder.create(target, identity or {"model": "m"}, settings or {}, overwrite=overwrite, limits=limits)


def feed(sink, start, stop, size=BATCH):
    for a in range(start, stop, size):
        part = slice(a, min(a + size, stop))
        sink.append(np.arange(N)[part], PROBS[part], LABELS[part], None)


def whole():
    return Distributions(PROBS, labels=LABELS)


def folder_of(target):
    return target if target.suffix == "" else target.with_name(target.name + ".partial")


@pytest.fixture(params=TARGETS)
def target(request, tmp_path):
    return tmp_path / request.param


def sink_of(folder, *, record_errors=False, **columns):
    return folder.sink(**{**COLUMNS, **columns}, on_error="record" if record_errors else "skip")


def test_a_run_that_ends_leaves_the_target_and_nothing_else(target):
    run = begin(target, identity={"a": [1]}, settings={"batch_size": BATCH})
    assert (run.identity, run.settings, run.position) == ({"a": [1]}, {"batch_size": BATCH}, 0)
    sink = sink_of(run)
    feed(sink, 0, N)
    assert len(run.journal.shards) >= 3
    sink.commit({"user": {"a": 1}})
    run.close()
    found = load(target)
    assert found.equals(whole())
    assert found.meta["metrics"]["accuracy"] == whole().metrics()["accuracy"]
    assert "complete" not in found.meta
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert check(target).ok
    assert check(target).complete
    assert RunFolder.reopen(target) is None


def test_a_run_that_is_aborted_is_resumed_to_the_same_bits(target):
    for end in (30, 95, 131):
        run = RunFolder.reopen(target, limits=SMALL) or begin(target)
        sink = sink_of(run)
        assert run.position % BATCH == 0
        feed(sink, run.position, end)
        error = RuntimeError("stopped")
        assert sink.abort(error) == folder_of(target)
        assert not hasattr(error, "__notes__")
        assert sink.written == end
        partly = load(folder_of(target))
        assert partly.equals(whole().slice(0, end))
        assert partly.meta["complete"] is False
        assert partly.meta["rows"] == {"written": end, "skipped": 0, "quarantined": 0}
        report = check(folder_of(target))
        assert report.ok, report.problems
        assert not report.complete
        assert not target.is_file()
    run = RunFolder.reopen(target, limits=SMALL)
    # The last append, of one row, was of a cut-short batch, which is run again whole.
    assert run.position == 130
    sink = sink_of(run)
    feed(sink, 130, N)
    sink.commit({})
    assert load(target).equals(whole())
    assert same_json(load(target).metrics(), whole().metrics(), 1e-12)


def test_the_newest_append_is_in_a_shard_of_its_own_which_is_dropped(target):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 34)
    sink.abort(KeyboardInterrupt())
    shards = Journal(folder_of(target)).shards
    assert [s.last_batch for s in shards] == [False] * (len(shards) - 1) + [True]
    assert (shards[-1].start, shards[-1].stop) == (30, 34)
    dropped = folder_of(target) / "data" / shards[-1].file
    assert dropped.exists()
    run = RunFolder.reopen(target)
    assert run.position == 30
    # Nothing goes before it is certain that the run goes on.
    assert dropped.exists()
    run.close()
    again = RunFolder.reopen(target)
    assert again.position == 30
    sink_of(again)
    assert not dropped.exists()
    again.close()


def test_an_abort_before_any_row_leaves_nothing(target):
    run = begin(target)
    sink = sink_of(run)
    assert sink.abort(RuntimeError()) is None
    assert list(target.parent.iterdir()) == []
    run.close()


def test_metrics_are_rebuilt_when_a_run_is_resumed(target):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 100)
    sink.abort(RuntimeError())
    run = RunFolder.reopen(target)
    sink = sink_of(run)
    assert sink.metrics.rows == sink.written == run.position == 90
    assert same_json(sink.metrics.result(), whole().slice(0, 90).metrics(), 1e-12)
    feed(sink, 90, N)
    sink.commit({})
    assert same_json(load(target).meta["metrics"], whole().metrics(), 1e-12)


@pytest.mark.parametrize("ids", ["int", "shuffled", "str"])
def test_an_id_of_the_rows_before_is_known_after_going_on(ids, target):
    kind = "str" if ids == "str" else "int"
    order = {
        "int": np.arange(20),
        "shuffled": np.arange(20)[::-1].copy(),
        "str": np.array([f"b{i}" for i in range(20)], object),
    }
    run = begin(target)
    sink = sink_of(run, id_kind=kind)
    sink.append(order[ids][:10], PROBS[:10], LABELS[:10], None)
    sink.append(order[ids][10:], PROBS[10:20], LABELS[10:20], None)
    sink.abort(RuntimeError())
    run = RunFolder.reopen(target)
    sink = sink_of(run, id_kind=kind)
    with pytest.raises(StoreError, match="duplicate ids"):
        sink.append(order[ids][:10], PROBS[:10], LABELS[:10], None)
    sink.append(order[ids][10:], PROBS[10:20], LABELS[10:20], None)
    sink.commit({})
    assert load(target).ids.tolist() == order[ids].tolist()


def test_a_shard_ends_with_its_size_or_its_age(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fo_onnx.store.run.shard_writer.time.monotonic", lambda: now[0])
    run = begin(tmp_path / "x", limits=ShardLimits(size_bytes=2**20, age_s=60))
    sink = sink_of(run)
    feed(sink, 0, 50)
    assert run.journal.shards == []
    now[0] = 61.0
    feed(sink, 50, 60)
    assert [(s.start, s.stop) for s in run.journal.shards] == [(0, 50)]
    run.close()
    run = begin(tmp_path / "y", limits=ShardLimits(size_bytes=20 * K * 4, group_rows=16))
    sink = sink_of(run)
    feed(sink, 0, 100)
    assert [(s.start, s.stop) for s in run.journal.shards] == [(0, 20), (20, 40), (40, 60), (60, 80)]
    assert sorted(p.name for p in (tmp_path / "y" / "data").iterdir())[0] == "part-000000000000.parquet"
    run.close()


def test_the_run_folder_on_the_disk(tmp_path):
    run = begin(tmp_path / "x", identity={"model": {"sha256": "ab"}}, settings={"runner": "onnx"})
    sink = sink_of(run)
    feed(sink, 0, 100)
    sink.commit({})
    names = {p.name for p in (tmp_path / "x").iterdir()}
    assert (
        {"run.json", "journal.jsonl", "data", "manifest.json"}
        <= names
        <= {"run.json", "journal.jsonl", "data", "manifest.json", ".lock"}
    )
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    assert (record["schema"], record["identity"], record["settings"]) == (
        1,
        {"model": {"sha256": "ab"}},
        {"runner": "onnx"},
    )
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert sum(s["rows"] for s in manifest["shards"]) == 100
    part = load(tmp_path / "x" / "data" / manifest["shards"][1]["file"])
    assert part.equals(whole().slice(manifest["shards"][1]["start"], manifest["shards"][1]["stop"]))


def test_the_meta_of_an_unfinished_run_is_what_its_settings_say(tmp_path):
    run = begin(tmp_path / "x", settings={"meta": {"model": {"name": "net", "class_names": ["a", "b", "c"]}}})
    sink = sink_of(run)
    feed(sink, 0, 20)
    sink.abort(RuntimeError())
    assert load(tmp_path / "x").class_names == ("a", "b", "c")


# ------------------------------------------------------------------------------------------------------ begin and refuse


def test_what_is_there_is_refused_before_any_row(target):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 50)
    sink.abort(RuntimeError())
    with pytest.raises(
        StoreExistsError, match="an unfinished run is there. resume=True continues it, overwrite=True begins anew"
    ):
        begin(target)
    with pytest.raises(StoreExistsError, match="resume=True"):
        RunFolder.check_target(target, overwrite=False)
    RunFolder.check_target(target, overwrite=True)
    run = begin(target, overwrite=True)
    assert run.position == 0
    sink = sink_of(run)
    feed(sink, 0, 20)
    sink.commit({})
    with pytest.raises(StoreExistsError, match="overwrite=True, or choose another name"):
        begin(target)
    assert load(target).equals(whole().slice(0, 20))


def test_a_finished_target_stays_until_the_new_one_is_complete(target):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 30)
    sink.commit({})
    old = load(target)
    run = begin(target, overwrite=True)
    sink = sink_of(run)
    feed(sink, 0, 120)
    assert load(target).equals(whole().slice(0, 30))
    sink.abort(RuntimeError())
    assert load(target).equals(old)
    assert check(target).ok
    run = RunFolder.reopen(target, limits=SMALL)
    assert run.position == 110
    sink = sink_of(run)
    feed(sink, 110, N)
    sink.commit({})
    assert load(target).equals(whole())
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_a_kill_between_the_two_renames_of_folders_is_mended(tmp_path):
    target = tmp_path / "x"
    for rows_, overwrite in ((30, False), (N, True)):
        run = begin(target, overwrite=overwrite)
        sink = sink_of(run)
        feed(sink, 0, rows_)
        if rows_ == N:
            shutil.copytree(target, tmp_path / "old")
        sink.commit({})
    # As it lies after the first of two renames: the old one was moved aside, the new one waits beside its place.
    target.rename(tmp_path / "x.partial")
    (tmp_path / "old").rename(tmp_path / ".fo-onnx-removed-0123456789abcdef")
    assert RunFolder.reopen(target) is None
    assert load(target).equals(whole())
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_folders_of_something_else_are_never_touched(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("!")
    with pytest.raises(StoreExistsError, match=r"files that are of no run \(thesis.tex\), which are never removed"):
        begin(tmp_path / "x", overwrite=True)
    (tmp_path / "y.json.partial").mkdir()
    (tmp_path / "y.json.partial" / "thesis.tex").write_text("!")
    with pytest.raises(StoreExistsError, match="which are never removed"):
        begin(tmp_path / "y.json", overwrite=True)
    (tmp_path / "z").write_text("!")
    with pytest.raises(StoreExistsError, match="a name without a suffix is a run folder, but a file is there"):
        begin(tmp_path / "z", overwrite=True)
    assert (tmp_path / "x" / "thesis.tex").exists()


@pytest.mark.parametrize("remains", [{}, {".lock": b""}, {".lock": b"", "run.json.tmp": b'{"kind": "fo-o'}])
def test_an_empty_folder_and_what_a_killed_beginning_leaves_are_begun_in(remains, tmp_path):
    (tmp_path / "x").mkdir()
    for name, content in remains.items():
        (tmp_path / "x" / name).write_bytes(content)
    assert RunFolder.reopen(tmp_path / "x") is None
    run = begin(tmp_path / "x")
    assert run.position == 0
    run.close()


@pytest.mark.parametrize(
    "content",
    [
        {"data/train.npy": b"precious"},
        {"journal.jsonl": b"remains"},
        {".lock": b"a lock of somebody else"},
        {"run.json.tmp": b'{"name": "a web application"}'},
        {"run.json": b'{"name": "a web application"}'},
        {"manifest.json": b'{"name": "a web application"}', "thesis.tex": b"precious"},
        {"run.json": b'{"kind": "fo-onnx run", "schema": "1"}'},
        {"errors.jsonl": b""},
    ],
)
@pytest.mark.parametrize("place", ["x", "x.parquet.partial"])
def test_a_folder_without_our_marker_is_refused_and_stays(content, place, tmp_path):
    for name, text in content.items():
        (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place / name).write_bytes(text)
    target = tmp_path / place.removesuffix(".partial")
    for overwrite in (False, True):
        with pytest.raises(StoreExistsError, match="are of no run .*never removed"):
            begin(target, overwrite=overwrite)
    assert RunFolder.reopen(target) is None
    assert {n: (tmp_path / place / n).read_bytes() for n in content} == content
    assert sum(p.is_file() for p in tmp_path.rglob("*")) == len(content)


def test_a_folder_that_is_not_there(target):
    with pytest.raises(StoreNotFoundError, match="is not there; make it first"):
        begin(target.parent / "no" / target.name)


def test_one_writer_at_a_time(target):
    run = begin(target)
    with pytest.raises(StoreError, match="another process is writing there"):
        RunFolder.reopen(target)
    with pytest.raises(StoreError, match="another process is writing there"):
        begin(target, overwrite=True)
    code = (
        "import sys; from pathlib import Path; from fo_onnx.store import RunFolder\n"
        "from fo_onnx.errors import StoreError\n"
        "try:\n    RunFolder.reopen(Path(sys.argv[1]))\n"
        "except StoreError as err:\n    print(err)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    env = os.environ | {"PYTHONPATH": root}
    other = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True, env=env
    )
    assert "another process is writing" in other.stdout
    assert str(folder_of(target)) in other.stdout
    run.close()
    run.close()
    again = RunFolder.reopen(target)
    assert again is not None
    again.close()


# -------------------------------------------------------------------------------------------------------------- going on


def test_other_columns_cannot_go_on(tmp_path):
    run = begin(tmp_path / "x.json")
    sink = sink_of(run)
    feed(sink, 0, 30)
    sink.abort(RuntimeError())
    run = RunFolder.reopen(tmp_path / "x.json")
    with pytest.raises(ResumeError, match="classes: 3 then, 4 now; logits: False then, True now"):
        sink_of(run, classes=4, logits=True)
    run.close()


def test_a_switch_of_runners_is_kept_and_all_rows_before_it_are_finished(target):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 50)
    assert run.switched_at is None
    run.record_switch(50, "the session failed")
    assert run.position == 50
    feed(sink, 50, 65)
    sink.abort(RuntimeError())
    run = RunFolder.reopen(target)
    assert (run.switched_at, run.switch_reason) == (50, "the session failed")
    assert run.position == 60
    run.close()


def test_a_run_that_was_killed_before_its_folder_was_removed_ends_again(tmp_path):
    target = tmp_path / "x.json"
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, N)
    sink.finish_shard()
    shutil.copytree(tmp_path / "x.json.partial", tmp_path / "copy")
    sink.commit({})
    (tmp_path / "copy").rename(tmp_path / "x.json.partial")
    run = RunFolder.reopen(target)
    assert run.position == N
    sink_of(run).commit({})
    assert load(target).equals(whole())
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


# -------------------------------------------------------------------------------------------------------------- bad rows


def feed_with_bad(sink, start, stop):
    for a in range(start, stop, BATCH):
        part = slice(a + 1, min(a + BATCH, stop))
        sink.append(np.arange(N)[part], PROBS[part], LABELS[part], None, [BadRow(a, a, f"row {a}: Bild zerstört")])


@pytest.mark.parametrize("record", [True, False])
def test_bad_rows_are_written_down_and_go_on_with_the_run(record, target):
    run = begin(target)
    sink = sink_of(run, record_errors=record)
    feed_with_bad(sink, 0, 75)
    sink.abort(RuntimeError())
    partly = load(folder_of(target)).meta["rows"]
    assert partly == {"written": 67, "skipped": 0 if record else 8, "quarantined": 8 if record else 0}
    run = RunFolder.reopen(target, limits=SMALL)
    assert run.position == 70
    sink = sink_of(run, record_errors=record)
    assert (sink.written, sink.bad_rows) == (63, 7)
    feed_with_bad(sink, 70, N)
    sink.commit({})
    found = load(target)
    assert found.meta["rows"] == {"written": 180, "skipped": 0 if record else 20, "quarantined": 20 if record else 0}
    report = check(target)
    assert report.bad_rows == 20
    beside = target / "errors.jsonl" if target.suffix == "" else target.with_name(target.name + ".errors.jsonl")
    assert beside.exists() == record
    if record:
        lines = [json.loads(line) for line in beside.read_text().splitlines()]
        assert [line["position"] for line in lines] == list(range(0, N, BATCH))
        assert lines[3] == {"fo_onnx": "bad row", "position": 30, "id": 30, "reason": "row 30: Bild zerstört"}


def test_an_old_list_of_bad_rows_goes_with_the_file_it_belonged_to(tmp_path):
    target = tmp_path / "x.json"
    for overwrite, feeding in ((False, feed_with_bad), (True, feed)):
        run = begin(target, overwrite=overwrite)
        sink = sink_of(run, record_errors=True)
        feeding(sink, 0, 50)
        sink.commit({})
        assert (tmp_path / "x.json.errors.jsonl").exists() == (feeding is feed_with_bad)


@pytest.mark.parametrize("content", [b"precious", b"", b'{"position": 3, "id": 3, "reason": "mine"}\n'])
def test_a_list_of_somebody_else_beside_the_target_stays(content, tmp_path):
    beside = tmp_path / "x.json.errors.jsonl"
    beside.write_bytes(content)
    with pytest.raises(
        StoreExistsError, match=r"writing down bad rows at .*x\.json\.errors\.jsonl|Writing down bad rows"
    ):
        RunFolder.check_place_of_bad_rows(tmp_path / "x.json")
    run = begin(tmp_path / "x.json")
    sink = sink_of(run)
    feed(sink, 0, 50)
    sink.commit({})
    assert beside.read_bytes() == content
    run = begin(tmp_path / "x.json", overwrite=True)
    with pytest.raises(StoreExistsError, match="fo-onnx did not write"):
        sink_of(run, record_errors=True)
    run.close()
    assert beside.read_bytes() == content


def test_counts_must_add_up(tmp_path):
    run = begin(tmp_path / "x.json")
    sink = sink_of(run)
    feed_with_bad(sink, 0, 50)
    with pytest.raises(StoreError, match="meta speaks of 50 rows and 0 bad ones, 45 and 5 were taken"):
        sink.commit({"rows": {"written": 50, "skipped": 0, "quarantined": 0}})
    sink.commit({"rows": {"written": 45, "skipped": 5, "quarantined": 0}})
    assert load(tmp_path / "x.json").meta["rows"]["skipped"] == 5


def test_a_bad_row_of_another_place(tmp_path):
    run = begin(tmp_path / "x.json")
    sink = sink_of(run)
    with pytest.raises(StoreError, match=r"bad rows at positions \[7\] in an append of positions 0 to 3"):
        sink.append(np.arange(3), PROBS[:3], LABELS[:3], None, [BadRow(7, 7, "x")])
    run.close()


# ---------------------------------------------------------------------------------------------------------------- damage


def aborted(target, end=95):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, end)
    sink.abort(RuntimeError())
    return folder_of(target)


@pytest.mark.parametrize("cut", [1, 2, 30, 90])
def test_a_journal_line_that_a_kill_cut_short_counts_as_not_written(cut, target):
    folder = aborted(target)
    journal = folder / "journal.jsonl"
    before = Journal(folder).shards
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert load(folder).meta["complete"] is False
    assert load(folder).equals(whole().slice(0, before[-2].stop))
    # A kill between a shard and its line looks the same, and so does a journal that lost its last line later.
    assert any("The journal lost its end, or the run was killed" in p for p in check(folder).problems)
    run = RunFolder.reopen(target, limits=SMALL)
    assert run.position == before[-2].stop
    sink = sink_of(run)
    assert journal.read_bytes().endswith(b"}\n")
    feed(sink, run.position, N)
    sink.commit({})
    assert load(target).equals(whole())


def test_a_broken_line_before_others_is_damage(target, caplog):
    folder = aborted(target)
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"rows":', b'"rowz":')
    journal.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=rf"line 3 of {len(lines)} is broken, and lines after it are not"):
        load(folder)
    assert not check(folder).ok
    goes_on_to_the_end(target, caplog)


def goes_on_to_the_end(target, caplog):
    """The rows before the damage are kept, those after it run again, and the log says from where on."""
    run = RunFolder.reopen(target, limits=SMALL)
    assert f"it continues from row {run.position}" in caplog.text
    sink = sink_of(run)
    feed(sink, run.position, N)
    sink.commit({})
    assert load(target).equals(whole())
    assert check(target).ok


def add_line(folder, entry):
    text = json.dumps(entry).encode()
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"crc32":"%08x","entry":%s}\n' % (zlib.crc32(text), text))


def test_a_journal_of_a_newer_version_is_refused_and_stays(target):
    folder = aborted(target)
    add_line(folder, {"kind": "merge"})
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for attempt in (lambda: load(folder), lambda: RunFolder.reopen(target)):
        with pytest.raises(StoreError, match="kind 'merge', which a newer fo-onnx wrote. Upgrade with: pip") as refused:
            attempt()
        assert "resume" not in str(refused.value)
    assert not check(folder).ok
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"kind": "switch"}, "KeyError: 'position'"),
        ({"kind": "switch", "position": float("inf"), "reason": "1e400"}, "OverflowError: "),
        ({"kind": "shard", "file": "../x"}, "TypeError: "),
    ],
)
def test_a_line_that_this_version_does_not_know_ends_the_journal(entry, message, target, caplog):
    folder = aborted(target)
    lines = len((folder / "journal.jsonl").read_bytes().splitlines())
    Journal(folder).append({"kind": "on_error", "position": 95, "on_error": "skip"})
    add_line(folder, entry)
    with pytest.raises(
        StoreError, match=rf"line {lines + 2} of {lines + 2} is not as this version knows it \({message}"
    ):
        load(folder)
    goes_on_to_the_end(target, caplog)


def test_a_run_with_a_broken_journal_is_begun_anew(target):
    folder = aborted(target)
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = b"?" * 10 + lines[4]
    journal.write_bytes(b"".join(lines))
    run = begin(target, overwrite=True)
    assert run.position == 0
    assert list((folder / "data").iterdir()) == []
    run.close()


def test_shards_that_do_not_follow_one_another_are_damage(target, caplog):
    folder = aborted(target)
    journal = folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(StoreError, match="follows position"):
        load(folder)
    goes_on_to_the_end(target, caplog)


def test_what_a_kill_leaves_half_done_is_removed_and_nothing_else_is(target):
    folder = aborted(target)
    stop = Journal(folder).shards[-1].stop
    remains = [
        folder / "data" / f"part-{stop:012d}.parquet",
        folder / f"part-{stop:012d}.parquet.tmp",
        folder / "assembled.tmp",
        folder / "journal.jsonl.tmp",
    ]
    for path in remains:
        path.write_bytes(b"half a file")
    foreign = folder / "data" / "part-000000000999.parquet"
    foreign.write_bytes(b"somebody's")
    run = RunFolder.reopen(target)
    with pytest.raises(
        StoreExistsError, match=r"not of this run .* data/part-000000000999.parquet\. Move that elsewhere"
    ):
        sink_of(run)
    run.close()
    assert all(path.exists() for path in remains)
    with pytest.raises(StoreExistsError, match=r"never removed: data/part-000000000999.parquet\. Move that elsewhere"):
        begin(target, overwrite=True)
    foreign.rename(target.parent / "elsewhere")
    run = RunFolder.reopen(target)
    sink_of(run)
    assert not any(path.exists() for path in remains)
    run.close()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: f.unlink(), "is not there"),
        (lambda f: f.write_bytes(f.read_bytes()[:-5]), "bytes, .* were written"),
        (
            lambda f: f.write_bytes(f.read_bytes()[:50] + b"X" + f.read_bytes()[51:]),
            "sha256 of the shard .* does not match",
        ),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_shard_that_changed(harm, message, finished, tmp_path, caplog):
    target = tmp_path / "x"
    if finished:
        run = begin(target)
        sink = sink_of(run)
        feed(sink, 0, N)
        sink.commit({})
    else:
        aborted(target)
    harm(sorted((target / "data").iterdir())[1])
    report = check(target)
    assert any(re.search(message, problem) for problem in report.problems), report.problems
    goes_on_to_the_end(target, caplog)
    assert re.search(message, caplog.text)


def test_a_shard_with_labels_that_are_no_class_is_not_built_on(target):
    """Whoever edits a shard can make its digest fit."""
    folder = aborted(target)
    shard = Journal(folder).shards[0]
    path = folder / "data" / shard.file
    table = pq.read_table(path)
    labels = pa.array([K, *table["label"].to_pylist()[1:]])
    pq.write_table(table.set_column(table.schema.get_field_index("label"), "label", labels), path)
    change = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    entries = [json.loads(line)["entry"] for line in (folder / "journal.jsonl").read_bytes().splitlines()]
    (folder / "journal.jsonl").write_bytes(b"")
    for entry in entries:
        add_line(folder, entry | change if entry.get("file") == shard.file else entry)
    with (
        RunFolder.reopen(target) as run,
        pytest.raises(StoreError, match=rf"labels that are no class.*: {K}\. The file"),
    ):
        sink_of(run)


def test_run_folders_of_newer_versions(tmp_path):
    folder = aborted(tmp_path / "x")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"schema": 2}))
    for attempt in (lambda: RunFolder.reopen(folder), lambda: load(folder)):
        with pytest.raises(StoreError, match="schema 2, written by a newer fo-onnx"):
            attempt()
    (folder / "run.json").write_text("{")
    with pytest.raises(StoreError, match="it is damaged, cut short or of another kind"):
        load(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(StoreError, match="its schema is None; a version number was expected"):
        load(folder)


def test_loading_the_target_of_an_unfinished_run_says_where_its_rows_are(tmp_path):
    aborted(tmp_path / "x.json")
    with pytest.raises(StoreNotFoundError, match=r"unfinished run on its way there is at .*x\.json\.partial"):
        load(tmp_path / "x.json")


def test_an_unfinished_run_without_rows(tmp_path):
    run = begin(tmp_path / "x")
    with pytest.raises(StoreError, match="an unfinished run that has no rows yet"):
        load(tmp_path / "x")
    run.close()


def test_a_manifest_and_a_journal_that_differ(tmp_path):
    target = tmp_path / "x"
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, N)
    sink.commit({})
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["shards"].pop()
    (target / "manifest.json").write_text(json.dumps(manifest))
    report = check(target)
    assert any("they are not the same" in problem for problem in report.problems)
    assert any("meta says 200 rows" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("shards"), "KeyError: 'shards'"),
        (lambda table: table["shards"][1].pop("sha256"), "missing .* 'sha256'"),
        (lambda table: table["shards"][1].update(rows=1), "1 rows and 0 bad ones at positions"),
        (
            lambda table: [s.update(start=0, stop=2**62, rows=2**62) for s in table["shards"]],
            "do not follow one another",
        ),
    ],
)
def test_a_wrong_list_of_shards(change, message, tmp_path):
    target = save(whole(), tmp_path / "x")
    table = json.loads((target / "manifest.json").read_text())
    table["shards"] *= 2
    change(table)
    (target / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(StoreError, match=rf"manifest.json, its list of shards: it is damaged.*{message}"):
        load(target)


def test_a_saved_run_folder_has_shards_within_their_limit(tmp_path):
    rows = ArrayRows(np.full((10**6, 10), 0.1, np.float32))
    rows.step = 10**6
    target = save(Distributions.from_rows(rows, {}), tmp_path / "x")
    shards = [pq.read_metadata(path).num_rows for path in (target / "data").iterdir()]
    assert sum(shards) == 10**6
    assert max(shards) * 40 < ShardLimits().size_bytes + 2**20


@pytest.mark.parametrize("name", ["add", "close"])
def test_an_interrupt_within_an_append_keeps_finished_shards_and_only_those(name, target, monkeypatch):
    run = begin(target)
    sink = sink_of(run)
    feed(sink, 0, 95)
    finished = run.position

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"fo_onnx.store.formats.parquet.ParquetOutput.{name}", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            feed(sink, 95, N)
        assert sink.abort(caught.value) == folder_of(target)
    assert sink.written >= finished > 0
    run = RunFolder.reopen(target, limits=SMALL)
    assert run.position == sink.written
    sink = sink_of(run)
    for start in range(run.position, N, BATCH):
        feed(sink, start, min(start + BATCH, N))
    sink.commit({})
    assert load(target).equals(whole())


@pytest.mark.parametrize("name", ["x.parquet", "x.json", "x"])
def test_each_batch_is_checked_once_on_its_way_into_a_file(name, tmp_path, monkeypatch):
    calls = Counter()
    modules = [m for key, m in sys.modules.items() if key.startswith("fo_onnx.") and hasattr(m, "invalid_rows")]
    for module in modules:

        def count(probs, name=module.__name__, check=module.invalid_rows):
            calls[name] += 1
            return check(probs)

        monkeypatch.setattr(module, "invalid_rows", count)
    x = np.random.default_rng(0).normal(size=(N, K)).astype(np.float32)
    d = fo.generate(lambda rows: rows, x, out=tmp_path / name, batch_size=BATCH, output="logits", progress=False)
    assert calls == {original_rows.__name__: N // BATCH}
    assert np.array_equal(d.probs.argmax(axis=1), x.argmax(axis=1))
    assert calls["fo_onnx.distributions.columns"] > 0  # rows of a file are checked as they are read
