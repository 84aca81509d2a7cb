"""A disk that is full, or refuses, at every single operation: nothing that was finished is lost, and the error says it."""

from __future__ import annotations

import errno
import gc
import os
import re

import numpy as np
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.errors import StoreError, StoreWriteError
from fo_onnx.store import FORMATS, RunFolder, ShardLimits, check, files, load, save
from fo_onnx.store.run.journal import Journal

K, BATCH, N = 3, 10, 120
PROBS = np.random.default_rng(5).dirichlet(np.full(K, 0.3), N).astype(np.float32)
SMALL = ShardLimits(size_bytes=25 * K * 4, group_rows=16)
COUNTED = ("open", "write", "sync", "replace", "sync_folder", "truncate")


class Failing:
    """Makes the n-th of some file operations fail, and all after it where it is `lasting`."""

    def __init__(self, monkeypatch, nth, *, code=errno.ENOSPC, names=COUNTED, lasting=False):
        self.count, self.nth, self.code, self.lasting = 0, nth, code, lasting
        for name in names:
            monkeypatch.setattr(files.operations, name, self._wrapped(getattr(files.operations, name)))

    def _wrapped(self, original):
        def call(*args):
            self.count += 1
            if self.count == self.nth or (self.lasting and self.count > self.nth):
                raise OSError(self.code, os.strerror(self.code))
            return original(*args)

        return call


def feed(sink, start, stop):
    for a in range(start, stop, BATCH):
        part = slice(a, min(a + BATCH, stop))
        sink.append(np.arange(N)[part], PROBS[part], None, None)


def sink_of(run):
    return run.sink(classes=K, id_kind="int", labels=False, logits=False)


def run_to_the_end(run):
    sink = sink_of(run)
    try:
        feed(sink, run.position, N)
        sink.commit({})
    except StoreWriteError as err:
        kept = sink.abort(err)
        if kept not in (None, run.path):
            raise AssertionError(kept) from err
        raise


def error_of(act):
    """What the disk's refusal became, if it became an error."""
    try:
        act()
    except StoreWriteError as err:
        return err
    return None


def folder_of(target):
    return target if target.suffix == "" else target.with_name(target.name + ".partial")


def operations_of_a_run(tmp_path, name, monkeypatch):
    with monkeypatch.context() as patch:
        counting = Failing(patch, 0)
        run = RunFolder.create(tmp_path / f"counted{name}", {}, {}, overwrite=False, limits=SMALL)
        run_to_the_end(run)
    return counting.count


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ""])
def test_a_full_disk_at_any_moment_of_a_run(suffix, lasting, tmp_path, monkeypatch):
    total = operations_of_a_run(tmp_path, suffix, monkeypatch)
    assert total > 50
    (tmp_path / "old").mkdir()
    kept_somewhere = 0
    for nth in sorted({*range(1, 12, 2), *range(12, total, 11), *range(total - 6, total + 1)}):
        target = tmp_path / "old" / f"x{suffix}{nth}" if suffix == "" else tmp_path / "old" / f"x{nth}{suffix}"
        journaled = 0
        with monkeypatch.context() as patch:
            Failing(patch, nth, lasting=lasting)
            try:
                run = RunFolder.create(target, {}, {}, overwrite=False, limits=SMALL)
            except StoreWriteError:
                continue
            error = error_of(lambda run=run: run_to_the_end(run))
            if error is None:
                # Only the clearing-up failed.
                assert load(target).equals(Distributions(PROBS))
            else:
                assert re.search(r"No space left on device\. Free space on that disk", str(error))
                assert error.errno == errno.ENOSPC
            journaled = run.journal.position
            run.close()
        if target.exists() and (suffix or (target / "manifest.json").exists()):
            # It failed after the target was whole, in clearing up.
            assert load(target).equals(Distributions(PROBS))
        if not (folder_of(target) / "run.json").exists() or (folder_of(target) / "manifest.json").exists():
            assert journaled == 0 or target.exists()
            continue
        if Journal(folder_of(target)).shards:
            found = load(folder_of(target))
            assert len(found) >= journaled
            assert found.equals(Distributions(PROBS).slice(0, len(found)))
            kept_somewhere += 1
        run = RunFolder.reopen(target, limits=SMALL)
        assert run.position >= journaled - BATCH
        run_to_the_end(run)
        assert load(target).equals(Distributions(PROBS))
        assert check(target).ok
    assert kept_somewhere > 3
    gc.collect()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_at_any_moment_of_saving(suffix, tmp_path, monkeypatch):
    old, new = Distributions([[0.5, 0.25, 0.25]]), Distributions(PROBS)
    path = save(old, tmp_path / f"x{suffix}")
    with monkeypatch.context() as patch:
        counting = Failing(patch, 0)
        save(new, tmp_path / f"y{suffix}")
    refused = 0
    for nth in range(1, counting.count):
        save(old, path, overwrite=True)
        with monkeypatch.context() as patch:
            Failing(patch, nth)
            error = error_of(lambda: save(new, path, overwrite=True))
            if error is None:
                assert len(load(path)) == N
            else:
                refused += 1
                assert re.search(r"failed at .*No space left on device", str(error))
                # The last step of the writing is that the new name is on the disk.
                assert len(load(path)) in (1, N)
        left = [p for p in tmp_path.iterdir() if p.name not in (path.name, f"y{suffix}")]
        # It can only be the clearing-up that failed, and what it left is ours.
        assert len(left) <= 1
        assert all(files.read_marker(p) or files.may_begin_in(p) for p in left)
    assert refused > counting.count / 2
    save(new, path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"y{suffix}"]
    gc.collect()


def test_the_finished_target_is_intact_when_its_replacement_fails(tmp_path, monkeypatch):
    target = tmp_path / "x.parquet"
    save(Distributions([[0.5, 0.25, 0.25]]), target)
    run = RunFolder.create(target, {}, {}, overwrite=True, limits=SMALL)
    sink = sink_of(run)
    feed(sink, 0, N)
    sink.finish_shard()
    with monkeypatch.context() as patch:
        Failing(patch, 1, names=("replace",), lasting=True)
        with pytest.raises(StoreWriteError, match="Writing the file failed at") as caught:
            sink.commit({})
        assert "kept" not in str(caught.value)
        assert sink.abort(caught.value) == run.path
    assert load(target).probs.tolist() == [[0.5, 0.25, 0.25]]
    run = RunFolder.reopen(target, limits=SMALL)
    assert run.position == N
    sink_of(run).commit({})
    assert load(target).equals(Distributions(PROBS))


def test_an_abort_on_a_full_disk_keeps_the_first_error_and_what_is_journaled(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "x.parquet", {}, {}, overwrite=False, limits=SMALL)
    sink = sink_of(run)
    feed(sink, 0, 75)
    journaled = run.journal.position
    assert 0 < journaled < 70
    first = ValueError("the model failed")
    with monkeypatch.context() as patch:
        Failing(patch, 1, lasting=True)
        assert sink.abort(first) == run.path
    assert any("While the finished rows were kept" in note and "No space left" in note for note in first.__notes__)
    assert sink.written == journaled
    run = RunFolder.reopen(tmp_path / "x.parquet", limits=SMALL)
    assert run.position == journaled
    run.close()


def test_after_a_failed_write_nothing_more_is_taken(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "x.parquet", {}, {}, overwrite=False, limits=SMALL)
    sink = sink_of(run)
    feed(sink, 0, 30)
    with monkeypatch.context() as patch:
        Failing(patch, 1, names=("write",))
        with pytest.raises(StoreWriteError):
            feed(sink, 30, N)
    with pytest.raises(StoreError, match="has failed"):
        sink.append(np.arange(100, 110), PROBS[:10], None, None)
    run.close()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "Free space on that disk"),
        (errno.EDQUOT, "Your disk quota is used up"),
        (errno.EACCES, "Choose a place where you may write"),
        (errno.EROFS, "That disk is read-only"),
        (errno.EIO, "Look at the disk"),
    ],
)
def test_the_advice_fits_the_error(code, advice, tmp_path, monkeypatch):
    Failing(monkeypatch, 1, code=code, names=("open",))
    with pytest.raises(StoreWriteError, match=advice) as caught:
        save(Distributions([[1, 0]]), tmp_path / "x.json")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == code
    assert str(tmp_path / "x.json") in str(caught.value)


def test_a_write_that_takes_only_a_part_is_continued(tmp_path, monkeypatch):
    original = files.operations.write
    monkeypatch.setattr(files.operations, "write", lambda d, data: original(d, data[:7]))
    d = Distributions(PROBS, ids=[f"a{i}" for i in range(N)])
    for suffix in FORMATS:
        assert np.array_equal(load(save(d, tmp_path / f"x{suffix}")).probs, PROBS)


def test_files_are_on_the_disk_before_their_names_are(tmp_path, monkeypatch):
    """The order of writing: content, fsync, rename, fsync of the folder, journal line, fsync."""
    seen = []
    for name in COUNTED:
        original = getattr(files.operations, name)
        monkeypatch.setattr(files.operations, name, lambda *a, o=original, n=name: seen.append(n) or o(*a))
    run = RunFolder.create(tmp_path / "x.parquet", {}, {}, overwrite=False, limits=SMALL)
    sink = sink_of(run)
    feed(sink, 0, 40)
    seen.clear()
    sink.finish_shard()
    after_writes = seen[len(seen) - seen[::-1].index("sync_folder") - 3 :]
    assert after_writes == ["sync", "replace", "sync_folder", "open", "truncate", "write", "sync"]
    run.close()


def test_copy_and_write_bytes(tmp_path):
    with files.temporary_folder() as folder:
        files.write_bytes(folder / "a", b"x" * 10_000_000)
        files.copy(folder / "a", folder / "b")
        assert (folder / "b").read_bytes() == b"x" * 10_000_000
        with pytest.raises(FileNotFoundError):
            files.copy(folder / "no", folder / "c")
        assert sorted(p.name for p in folder.iterdir()) == [".lock", "a", "b", "fo-onnx.json"]
    assert not folder.exists()
