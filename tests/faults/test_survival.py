"""What is finished stays finished: through kills, interrupts and time limits, and the end is the same in every bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from onnx_files import linear
from onnx_graphs import never_ending

import fo_onnx as fo
from fo_onnx.errors import OptionError, ResumeError, RunError, StoreExistsError
from fo_onnx.store import RunFolder

SCRIPT = Path(__file__).parents[1] / "support" / "long_run.py"
FEATURES, CLASSES = 32, 1000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    weights = np.random.default_rng(1).standard_normal((FEATURES, CLASSES)).astype(np.float32)
    return linear(tmp_path_factory.mktemp("model") / "m.onnx", weights=weights)


def data_file(folder, rows):
    path = folder / "rows.npy"
    np.save(path, np.random.default_rng(0).standard_normal((rows, FEATURES), dtype=np.float32))
    return path


def start(model, data, out, *pause):
    command = [sys.executable, str(SCRIPT), str(model), str(data), str(out), *map(str, pause)]
    return processes.start(command)


def uninterrupted(model, data, out):
    """The run in a process of its own; returns the seconds that it took from its first line on."""
    process = start(model, data, out)
    process.stdout.readline()
    begun = time.monotonic()
    output, errors = process.communicate()
    assert "done" in output, errors
    return time.monotonic() - begun


def killed_until_done(model, data, out, kills, seed, whole_s):
    """Kills the run at random moments, then lets it end. Returns how many rows each resumed run found finished."""
    rng, positions = random.Random(seed), []
    for _ in range(kills):
        process = start(model, data, out)
        process.stdout.readline()
        try:
            process.communicate(timeout=rng.uniform(0.05, 0.3) * whole_s)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        folder = RunFolder.reopen(out)
        if folder is not None:
            positions.append(folder.position)
            folder.close()
    uninterrupted(model, data, out)
    return positions


def assert_same_bits(a, b):
    first, second = fo.load(a), fo.load(b)
    assert len(first) == len(second)
    for row in range(0, len(first), 20_000):
        one, other = first.slice(row, row + 20_000), second.slice(row, row + 20_000)
        assert one.equals(other)
    assert fo.check(a).ok
    assert first.meta["rows"] == second.meta["rows"]


def test_killed_three_times_and_equal_in_every_bit(model, tmp_path):
    data = data_file(tmp_path, 20_000)
    whole_s = uninterrupted(model, data, tmp_path / "whole.parquet")
    killed_until_done(model, data, tmp_path / "killed.parquet", 3, 0, whole_s)
    assert_same_bits(tmp_path / "killed.parquet", tmp_path / "whole.parquet")
    assert not (tmp_path / "killed.parquet.partial").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_000_rows_killed_ten_times_and_equal_in_every_bit(model, tmp_path):
    data = data_file(tmp_path, 200_000)
    whole_s = uninterrupted(model, data, tmp_path / "whole.parquet")
    positions = killed_until_done(model, data, tmp_path / "killed.parquet", 10, 1, whole_s)
    print(f"rows found finished after each kill: {positions}")
    assert positions == sorted(positions)
    assert positions[-1] > 0
    assert_same_bits(tmp_path / "killed.parquet", tmp_path / "whole.parquet")


def test_ctrl_c_ends_within_a_second_and_keeps_the_rows(model, tmp_path):
    data, out = data_file(tmp_path, 3000), tmp_path / "d.parquet"
    process = start(model, data, out, 0.002)
    processes.wait_for_run(out)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begun < 1.5  # the second that is promised, and the interpreter's own end
    assert "KeyboardInterrupt" in errors
    assert f"finished rows are kept in {out}.partial; resume=True (--resume) continues from them" in errors
    kept = len(fo.load(f"{out}.partial"))
    assert 0 < kept < 3000
    process = start(model, data, out, 0)
    assert "done" in process.communicate()[0]
    fo.generate(model, data, out=tmp_path / "whole.parquet", batch_size=64, transform=lambda x: x)
    assert_same_bits(out, tmp_path / "whole.parquet")


def test_ctrl_c_ends_a_run_that_would_never_end(tmp_path):
    """A Loop of 2**62 turns inside of one batch: only ONNX Runtime itself can be told to stop."""
    code = """
import sys, numpy as np, fo_onnx as fo
print("begun", flush=True)
fo.generate(sys.argv[1], np.ones((4, 6), np.float32), output="logits", runner="onnx")
"""
    process = processes.start([sys.executable, "-c", code, str(never_ending(tmp_path / "endless.onnx"))])
    try:
        process.stdout.readline()
        time.sleep(2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        # Where the test fails, nothing else would ever end it.
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - begun < 2


def test_a_time_limit_keeps_the_finished_rows(model, tmp_path):
    data, out = data_file(tmp_path, 2000), tmp_path / "d.parquet"

    def slow(x):
        time.sleep(0.003)
        return x

    with pytest.raises(RunError, match=r"reached its timeout_s.*finished rows are kept in .*d.parquet.partial"):
        fo.generate(model, data, out=out, timeout_s=2.5, transform=slow, batch_size=64)
    assert 0 < len(fo.load(f"{out}.partial")) < 2000
    with pytest.raises(StoreExistsError, match="resume=True continues it, overwrite=True begins anew"):
        fo.generate(model, data, out=out, transform=slow)
    resumed = fo.generate(model, data, out=out, resume=True, transform=slow, batch_size=500)
    assert resumed.meta["engine"]["batch_size"] == 64
    assert resumed.equals(fo.generate(model, data, batch_size=64, transform=slow))


def test_a_run_in_memory_hands_its_rows_over_with_the_error(model, tmp_path):
    def slow(x):
        time.sleep(0.003)
        return x

    with pytest.raises(RunError, match="finished rows are in this error's attribute `finished`") as caught:
        fo.generate(model, data_file(tmp_path, 2000), timeout_s=2.5, transform=slow, batch_size=64)
    kept = caught.value.finished
    assert 0 < len(kept) < 2000
    assert len(kept) % 64 == 0


class Rows:
    """Rows by position, one of which cannot be read."""

    def __init__(self, rows, *, broken=None):
        self.rows, self.broken = rows, broken

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        if position == self.broken:
            raise OSError("the disk is failing")
        return self.rows[position]


def stopped(model, rows, out, **options):
    """A run that stopped at row 700."""
    with pytest.raises(fo.DataError, match="row 700 .*resume=True"):
        fo.generate(model, Rows(rows, broken=700), out=out, **options)


def test_a_run_that_does_not_fit_the_one_begun(model, tmp_path):
    x = np.load(data_file(tmp_path, 1000))
    out = tmp_path / "d.parquet"
    labels = np.arange(1000) % CLASSES
    stopped(model, x, out, batch_size=16, labels=labels)

    def resume(net=model, rows=x, *, labels=labels, **options):
        return fo.generate(net, Rows(rows), out=out, resume=True, labels=labels, **options)

    with pytest.raises(ResumeError, match=r"the temperature \(1.0 then, 2.0 now\)"):
        resume(temperature=2.0)
    with pytest.raises(ResumeError, match=r"the input or the label of at least \d+ rows changed, first at row 0\."):
        resume(rows=x + 1)
    with pytest.raises(ResumeError, match=r"the number of rows \(1000 then, 999 now\)"):
        resume(rows=x[:-1], labels=labels[:-1])
    with pytest.raises(ResumeError, match=r"keep_logits \(False then, True now\)"):
        resume(keep_logits=True)
    other = linear(tmp_path / "other.onnx", weights=np.ones((FEATURES, CLASSES), np.float32))
    with pytest.raises(ResumeError, match=r"the model \(its weights or its code\)\. Give what it was begun with"):
        resume(other)
    relabelled = labels.copy()
    relabelled[[123, 400]] = (relabelled[[123, 400]] + 1) % CLASSES
    with pytest.raises(ResumeError, match=r"the label of 2 rows changed, first at row 123\."):
        resume(labels=relabelled)
    with pytest.raises(ResumeError, match=r"whether there are labels \(True then, False now\)"):
        resume(labels=None)
    with pytest.raises(ResumeError, match=r"the id of 688 rows changed, first at row 0\."):
        resume(ids=np.arange(1000)[::-1])
    with pytest.raises(
        ResumeError, match=r"the preprocessing|the input or the label of at least \d+ rows changed, first at row 0"
    ):
        resume(transform=lambda row: row * 2)
    # Refusals lose nothing, and rows that are still to come may change: they were mended, say.
    relabelled = labels.copy()
    relabelled[900] = (relabelled[900] + 1) % CLASSES
    done = resume(labels=relabelled)
    assert done.meta["rows"]["written"] == 1000
    assert (done.labels == relabelled).all()
    assert (done.probs == fo.generate(model, x, batch_size=16).probs).all()


def test_one_changed_row_among_the_finished_ones_is_seen_in_arrays(model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    x[900] = np.nan
    with pytest.raises(fo.DataError, match="row 900 .*resume=True"):
        fo.generate(model, x, out=out, batch_size=16)
    mended = x.copy()
    mended[900] = 1
    changed = mended.copy()
    changed[[123, 777]] += 1
    with pytest.raises(ResumeError, match=r"the input or the label of 2 rows changed, first at row 123\."):
        fo.generate(model, changed, out=out, resume=True)
    assert len(fo.generate(model, mended, out=out, resume=True)) == 1000


def test_one_changed_row_is_seen_in_a_list_of_pairs(model, tmp_path):
    """It lies in memory, so that all finished rows are compared, with their labels."""
    x, out, labels = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet", np.arange(1000) % CLASSES
    pairs = list(zip(x, labels.tolist(), strict=True))
    stopped_pairs = [*pairs[:700], (x[700] * np.nan, 0), *pairs[701:]]
    with pytest.raises(fo.DataError, match="row 700 .*resume=True"):
        fo.generate(model, stopped_pairs, out=out, batch_size=16)
    for changed in ((x[300] + 1, labels[300]), (x[300], (labels[300] + 1) % CLASSES)):
        with pytest.raises(ResumeError, match=r"the input or the label of 1 row changed, first at row 300\."):
            fo.generate(model, [*pairs[:300], changed, *pairs[301:]], out=out, resume=True)
    # A row that is still to come fails when it is run, and the rows before it are kept.
    with pytest.raises(fo.DataError, match="row 700 .*resume=True"):
        fo.generate(model, [*pairs[:700], (None, 0), *pairs[701:]], out=out, resume=True)
    done = fo.generate(model, pairs, out=out, resume=True)
    assert (done.labels == labels).all()
    assert (done.probs == fo.generate(model, x, batch_size=16).probs).all()


class Pairs(list):
    """Pairs that are read one by one."""


@pytest.mark.parametrize("suffix", [".parquet", ""])
@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        pytest.param(list, [3, 300], id="a list"),
        pytest.param(Pairs, [3], id="read one by one"),
    ],
)
@pytest.mark.parametrize("skipped", [False, True], ids=["all rows", "a skipped row"])
def test_changed_labels_of_a_finished_result(kind, seen, skipped, suffix, model, tmp_path):
    """Only reading a row tells its label."""
    x, labels = np.load(data_file(tmp_path, 1000)), np.arange(1000) % CLASSES
    x[1] *= np.nan if skipped else 1
    options = {"out": tmp_path / f"d{suffix}", "batch_size": 16, "on_error": "skip"}
    first = fo.generate(model, kind(zip(x, labels.tolist(), strict=True)), **options)
    again = fo.generate(model, kind(zip(x, labels.tolist(), strict=True)), resume=True, **options)
    assert again.equals(first)
    for row in seen:
        relabelled = labels.copy()
        relabelled[[row, 600]] = (relabelled[[row, 600]] + 1) % CLASSES
        count = "2 rows" if kind is list else r"at least \d rows?"
        with pytest.raises(fo.StoreError, match=rf"another run: the label of {count} changed, first at row {row}\."):
            fo.generate(model, kind(zip(x, relabelled.tolist(), strict=True)), resume=True, **options)
    assert (fo.load(options["out"]).labels == first.labels).all()


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_one_changed_id_of_a_finished_result(suffix, model, tmp_path):
    x, out, ids = np.load(data_file(tmp_path, 5000)), tmp_path / f"d{suffix}", [f"i{i}" for i in range(5000)]
    first = fo.generate(model, x, ids=ids, out=out)
    assert fo.generate(model, x, ids=ids, out=out, resume=True).equals(first)
    for row in (3, 4998):
        with pytest.raises(fo.StoreError, match=rf"another run: the id of 1 row changed, first at row {row}\."):
            fo.generate(model, x, ids=[*ids[:row], "other", *ids[row + 1 :]], out=out, resume=True)


def test_changed_rows_among_the_first_are_seen_in_data_that_are_read_row_by_row(model, tmp_path):
    """Others are seen in a sample, since each costs a reading; so the number is said to be the least."""
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    stopped(model, x, out, batch_size=16)
    changed = x.copy()
    changed[[123, 200]] += 1
    with pytest.raises(ResumeError, match=r"the input or the label of at least 2 rows changed, first at row 123\."):
        fo.generate(model, Rows(changed), out=out, resume=True)
    changed = x.copy()
    changed[256:688] += 1
    with pytest.raises(ResumeError, match=r"the input or the label of at least 32 rows changed, first at row 256\."):
        fo.generate(model, Rows(changed), out=out, resume=True)
    assert len(fo.generate(model, Rows(x), out=out, resume=True)) == 1000


def test_a_run_is_not_resumed_with_another_runner_than_is_asked_for(model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    stopped(lambda batch: batch @ np.eye(FEATURES, CLASSES, dtype=np.float32), x, out, batch_size=16, output="logits")
    with pytest.raises(ResumeError, match="begun with the native runner, and runner='onnx' is asked for now"):
        fo.generate(model, Rows(x), out=out, resume=True, runner="onnx")


def test_on_error_may_change_when_a_run_is_resumed(model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    stopped(model, x, out, batch_size=16)
    done = fo.generate(model, Rows(x, broken=700), out=out, resume=True, on_error="record")
    assert done.meta["rows"] == {"written": 999, "skipped": 0, "quarantined": 1}
    assert done.meta["data"]["on_error"] == [{"from": 0, "on_error": "fail"}, {"from": 688, "on_error": "record"}]
    assert fo.check(out).ok


def test_a_run_over_an_iterable_is_resumed_if_limit_says_how_many_rows_it_has(model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    labels = np.arange(1000) % CLASSES

    def pairs(rows=x, classes=labels, *, broken=None):
        for position, pair in enumerate(zip(rows, classes, strict=True)):
            if position == broken:
                raise OSError("the network is gone")
            yield pair

    with pytest.raises(fo.DataError, match=r"row 700 .*resume=True"):
        fo.generate(model, pairs(broken=700), out=out, batch_size=16)
    with pytest.raises(ResumeError, match=r"do not say how many rows they have.*limit=…"):
        fo.generate(model, pairs(), out=out, resume=True)
    relabelled = labels.copy()
    relabelled[[123, 600]] = (relabelled[[123, 600]] + 1) % CLASSES
    with pytest.raises(ResumeError, match=r"the input or the label of at least 1 row changed, first at row 123\."):
        fo.generate(model, pairs(classes=relabelled), out=out, resume=True, limit=1000)
    inserted = np.concatenate([x[:200], x[:1], x[200:]])
    with pytest.raises(ResumeError, match=r"rows? changed, first at row 200\."):
        fo.generate(model, pairs(inserted, np.arange(1001) % CLASSES), out=out, resume=True, limit=1000)
    with pytest.raises(ResumeError, match=r"rows are finished, but the data end after 100 rows now"):
        fo.generate(model, pairs(x[:100], labels[:100]), out=out, resume=True, limit=1000)
    with pytest.raises(fo.DataError, match=r"the data end after 900 rows, but limit=1000 says .* say limit=900"):
        fo.generate(model, pairs(x[:900], labels[:900]), out=out, resume=True, limit=1000)
    done = fo.generate(model, pairs(), out=out, resume=True, limit=1000)
    assert (done.labels == labels).all()
    assert (done.probs == fo.generate(model, x, batch_size=16).probs).all()


@pytest.mark.parametrize(
    "edit",
    [
        {"batch_size": 0}, {"batch_size": True}, {"batch_size": 10**12}, {"batch_size": "16"}, {"runner": "cuda"},
        {"sessions": 10**9}, {"threads": -1}, {"device": 3}, {"parity": {"rows": "many"}},
    ],
)  # fmt: skip
def test_a_run_json_that_was_edited_is_checked_like_an_argument(edit, model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"
    stopped(model, x, out, batch_size=16)
    path = tmp_path / "d.parquet.partial" / "run.json"
    record = json.loads(path.read_text())
    record["settings"] |= edit
    path.write_text(json.dumps(record))
    with pytest.raises(fo.StoreError, match=r"run.json is not as this version writes it"):
        fo.generate(model, Rows(x), out=out, resume=True)


def test_a_finished_run_has_nothing_left_to_do(model, tmp_path):
    data, out = data_file(tmp_path, 300), tmp_path / "d.json"
    first = fo.generate(model, data, out=out)
    created = json.loads(out.read_text())["meta"]["created"]
    again = fo.generate(model, data, out=out, resume=True)
    assert again.equals(first)
    assert again.meta["created"] == created
    with pytest.raises(StoreExistsError, match="it is there already"):
        fo.generate(model, data, out=out)
    with pytest.raises(
        StoreExistsError, match=r"the finished result of another run: the rows, their ids or their labels\."
    ):
        fo.generate(model, np.load(data) + 1, out=out, resume=True)
    with pytest.raises(
        StoreExistsError, match=r"the temperature \(1.0 then, 5.0 now\); keep_logits \(False then, True now\)"
    ):
        fo.generate(model, data, out=out, resume=True, temperature=5, keep_logits=True)
    for name in ("d.npy", "d"):
        fo.generate(model, data, out=tmp_path / name)
        assert (fo.generate(model, data, out=tmp_path / name, resume=True).probs == first.probs).all()
    np.save(tmp_path / "own.npy", first.probs)
    with pytest.raises(StoreExistsError, match="fo-onnx did not write|holds no record of its run"):
        fo.generate(model, data, out=tmp_path / "own.npy", resume=True)


def test_resume_of_a_limited_run_is_not_the_whole(model, tmp_path):
    rows = np.load(data_file(tmp_path, 200))
    out = tmp_path / "d.parquet"
    fo.generate(model, iter(rows), out=out, limit=100)
    with pytest.raises(StoreExistsError, match=r"limit \(100 then, none now\)"):
        fo.generate(model, iter(rows), out=out, resume=True)


def test_an_engine_resumes_as_the_run_was_begun(model, tmp_path):
    """Whatever the engine has run before, with whatever batch size."""
    rows, out = np.load(data_file(tmp_path, 1000)), tmp_path / "d.parquet"

    stopped(model, rows, out, batch_size=32)
    with fo.Engine(model) as engine:
        engine.predict(rows[:1])
        resumed = engine.generate(Rows(rows), out=out, resume=True)
        assert resumed.meta["engine"]["batch_size"] == 32
        again = engine.generate(rows)
        assert again.meta["engine"]["batch_size"] == 256
    assert resumed.equals(fo.generate(model, rows, batch_size=32))


def test_bad_rows_are_counted_over_every_part_of_a_run(model, tmp_path):
    rows, out = np.load(data_file(tmp_path, 300)), tmp_path / "d.parquet"
    rows[::20] = np.nan
    for _ in range(3):
        with pytest.raises(fo.DataError, match=r"rows could not be read or run, and max_errors=6"):
            fo.generate(model, rows, out=out, resume=True, on_error="skip", max_errors=6, batch_size=16)


def test_a_time_limit_holds_while_a_row_is_being_read(tmp_path):
    class Hanging:
        def __len__(self):
            return 40

        def __getitem__(self, row):
            if row == 20 and "read-ahead" in threading.current_thread().name:
                time.sleep(4)
            return np.zeros(3, np.float32)

    begun = time.monotonic()
    with pytest.raises(RunError, match="reached its timeout_s.* while a row was being read") as caught:
        fo.generate(lambda x: x, Hanging(), timeout_s=0.5, output="logits", batch_size=4)
    assert time.monotonic() - begun < 3
    assert len(caught.value.finished) == 20


def test_an_engine_works_on_after_a_time_limit(model, tmp_path):
    rows = np.load(data_file(tmp_path, 500))
    with fo.Engine(model) as engine:
        before = engine.predict(rows[:3])
        with pytest.raises(RunError):
            engine.generate(rows, timeout_s=0.1, transform=lambda x: (time.sleep(0.01), x)[1])
        assert (engine.predict(rows[:3]) == before).all()
        assert len(engine.generate(rows)) == 500


def test_resume_needs_a_place_and_no_overwrite(model):
    with pytest.raises(OptionError, match="needs out="):
        fo.generate(model, np.zeros((1, FEATURES), np.float32), resume=True)
    with pytest.raises(OptionError, match="needs overwrite=False"):
        fo.generate(model, np.zeros((1, FEATURES), np.float32), out="x.json", resume=True, overwrite=True)


MEMORY = """
import sys, numpy as np, fo_onnx as fo
def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
rows, out = int(sys.argv[2]), sys.argv[3]
def stream(n):
    rng = np.random.default_rng(0)
    for start in range(0, n, 10_000):
        yield rng.standard_normal((min(10_000, n - start), 6), dtype=np.float32)
model = fo.OnnxModel.open(sys.argv[1])
fo.generate(model, stream(20), out=out + "/warm.parquet")
before = peak()
dists = fo.generate(model, stream(rows), out=out + "/big.parquet")
print(len(dists), (peak() - before) / 2**20, dists.metrics()["rows"])
"""


@pytest.mark.parametrize(
    "rows", [1_000_000, pytest.param(10_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_memory_does_not_grow_with_the_rows(tmp_path, rows):
    weights = np.random.default_rng(1).standard_normal((6, 10)).astype(np.float32)
    path = linear(tmp_path / "m.onnx", weights=weights)
    command = [sys.executable, "-c", MEMORY, str(path), str(rows), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, grown_mb, counted = done.stdout.split()
    print(f"{rows} rows: {float(grown_mb):.0f} MB more than after a run of 20")
    assert int(found) == int(counted) == rows
    assert float(grown_mb) < 100


def test_telemetry_is_off_unless_the_user_says_otherwise(tmp_path):
    path = linear(tmp_path / "m.onnx")
    code = (
        f"import os, numpy as np, fo_onnx as fo; fo.generate({str(path)!r}, np.ones((2, 6), np.float32), output='logits'); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    for given, seen in ((None, "1"), ("0", "0")):
        environment = {"PATH": "", "HOME": str(tmp_path)} | ({} if given is None else {"ORT_DISABLE_TELEMETRY": given})
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == seen


def test_what_check_says_of_a_lost_journal_is_a_way_on(model, tmp_path):
    x, out = np.load(data_file(tmp_path, 1000)), tmp_path / "run"
    stopped(model, x, out, batch_size=16)
    (out / "journal.jsonl").unlink()
    shards = sorted(p.name for p in (out / "data").iterdir())
    (problem,) = [p for p in fo.check(out).problems if "the journal does not name" in p]
    foreign = [name for name in shards if name in problem.split("Move ")[1]] if "Move " in problem else []
    for name in foreign:
        (out / "data" / name).rename(tmp_path / name)
    done = fo.generate(model, Rows(x), out=out, resume=True)
    assert done.equals(fo.generate(model, x, batch_size=16))


def test_check_of_what_is_no_run_says_so(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(fo.StoreError, match=r"Checking .*mine: a folder without run\.json and manifest\.json"):
        fo.check(tmp_path / "mine")
    (tmp_path / "mine" / "run.json").write_text("{}")
    assert any("cannot be resumed" in p for p in fo.check(tmp_path / "mine").problems)


def test_a_foreign_file_at_out_is_named_before_overwrite_is_offered(model, tmp_path):
    (tmp_path / "d.parquet").write_text("thesis")
    for overwrite in (False, True):
        with pytest.raises(fo.StoreError, match="that fo-onnx did not write .*choose another name"):
            fo.generate(model, np.zeros((3, FEATURES), np.float32), out=tmp_path / "d.parquet", overwrite=overwrite)


def test_a_time_limit_with_no_finished_row_says_so(model, tmp_path):
    def slow(row):
        time.sleep(60 if row[0] == 300 else 0)
        return row

    x = np.zeros((600, FEATURES), np.float32)
    x[:, 0] = np.arange(600)
    with pytest.raises(RunError, match=r"reached its timeout_s=1 s.*No row was finished\."):
        fo.generate(model, Rows(x), out=tmp_path / "d.parquet", timeout_s=1, transform=slow, batch_size=512)
