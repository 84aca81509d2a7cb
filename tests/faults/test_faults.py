"""A failure at every single call into the file room, in runs into every format: no row is lost or changed.

Five kinds of failure: the process dies, dies in the middle of a write, or the operating system refuses (EIO, ENOSPC,
EACCES). Afterwards the run is resumed, and what comes out is compared in every bit with a run that nothing befell.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.store import FORMATS, RunFolder, ShardLimits, files

ROWS, FEATURES, CLASSES, BATCH = 96, 5, 3, 8
X = np.random.default_rng(1).standard_normal((ROWS, FEATURES)).astype(np.float32)
X[[13, 50]] = np.nan
WEIGHTS = np.random.default_rng(2).standard_normal((FEATURES, CLASSES)).astype(np.float32)
METHODS = [name for name in vars(files.Operations) if not name.startswith("_")]
REFUSED = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES}
KINDS = ["crash", "half write", *REFUSED]
TARGETS = [*(f"d{suffix}" for suffix in FORMATS), "d"]
DIED = 77


def model(x: np.ndarray) -> np.ndarray:
    return x @ WEIGHTS


def other_model(x: np.ndarray) -> np.ndarray:
    return x @ -WEIGHTS


def run(out: Path, net: Callable = model, **options) -> fo.Distributions:
    return fo.generate(net, X, out=out, batch_size=BATCH, output="logits", on_error="record", progress=False, **options)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for method in (RunFolder.create.__func__, RunFolder.reopen.__func__):
        limits = ShardLimits(size_bytes=32 * CLASSES * 4, group_rows=16)
        monkeypatch.setitem(method.__kwdefaults__, "limits", limits)


@contextmanager
def fault(nth: int, kind: str) -> Iterator[list[str]]:
    """Lets the `nth` call into the file room fail; 0 for none. Gives the names of the calls so far."""
    calls: list[str] = []

    def wrap(name: str, original: Callable) -> Callable:
        def call(*args):
            calls.append(name)
            if len(calls) != nth:
                return original(*args)
            if kind in REFUSED:
                raise OSError(REFUSED[kind], os.strerror(REFUSED[kind]))
            if kind == "half write" and name == "write":
                descriptor, data = args
                original(descriptor, data[: len(data) // 2])
            os._exit(DIED)

        return call

    for name in METHODS:
        setattr(files.operations, name, wrap(name, getattr(files.operations, name)))
    try:
        yield calls
    finally:
        for name in METHODS:
            delattr(files.operations, name)


def befall(nth: int, kind: str, act: Callable[[], object]) -> str | None:
    """Acts with a fault; what the error said, where there was one."""
    if kind in REFUSED:
        with fault(nth, kind):
            try:
                act()
            except fo.FoOnnxError as err:
                return str(err)
        return None
    pid = os.fork()
    if pid == 0:
        try:
            with fault(nth, kind):
                act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, DIED)
    return None


def count_calls(act: Callable[[], object]) -> int:
    with fault(0, "") as calls:
        act()
    return len(calls)


def columns_of(dists: fo.Distributions) -> tuple[bytes, ...]:
    return np.asarray(dists.ids).tobytes(), dists.probs.tobytes()


def require_told_places(said: str | None) -> None:
    """A message that says where rows are kept is right."""
    if said and "kept in " in said:
        place = said.split("kept in ")[1].split(";")[0]
        assert len(fo.load(place)) > 0, said


def sampled(total: int, share: int, shift: int) -> list[int]:
    return [nth for nth in range(1, total + 1) if (nth + shift) % share == 0]


def go_through(folder: Path, name: str, kind: str, share: int) -> dict[str, int]:
    """Faults at the calls of a fresh run, of one that replaces an older result, and of one that is resumed."""
    counts = {"faults": 0, "resumed": 0, "nothing kept": 0}
    whole = columns_of(run(folder / f"whole{name[1:]}"))
    older = columns_of(run(folder / f"older{name[1:]}", other_model))
    total = count_calls(lambda: run(folder / f"count{name[1:]}"))
    for before in ("nothing", "an older result", "an unfinished run"):
        for nth in sampled(total, share, TARGETS.index(name) + 3 * KINDS.index(kind)):
            place = folder / f"{before.split()[-1]}{nth}"
            place.mkdir()
            out = place / name
            options = {}
            if before == "an older result":
                run(out, other_model)
                options = {"overwrite": True}
            elif before == "an unfinished run":
                befall(total // 2, "crash", lambda out=out: run(out))
                options = {"resume": True}
            counts["faults"] += 1
            said = befall(nth, kind, lambda out=out, options=options: run(out, **options))
            require_told_places(said)
            if out.is_file() or (out / "manifest.json").exists():
                assert columns_of(fo.load(out)) in (whole, older), (before, nth)
            try:
                result = run(out, resume=True)
            except fo.errors.StoreExistsError:
                # Nothing of the new run was kept, and the older result stands there, whole.
                assert before == "an older result"
                assert columns_of(fo.load(out)) == older
                partial = out.with_name(f"{name}.partial")
                assert not partial.exists() or (kind in KINDS[:2] and files.may_begin_in(partial))
                counts["nothing kept"] += 1
                result = run(out, overwrite=True)
            else:
                counts["resumed"] += 1
            assert columns_of(result) == columns_of(fo.load(out)) == whole, (before, nth)
            assert fo.check(out).ok, fo.check(out).problems
            beside = out / "errors.jsonl" if name == "d" else out.with_name(f"{name}.errors.jsonl")
            assert [json.loads(line)["position"] for line in beside.read_text().splitlines()] == [13, 50]
            left = {p.name for p in place.iterdir()} - {name, f"{name}.errors.jsonl"}
            assert not left, (before, nth, left)
    return counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_fault_at_some_calls_loses_no_row(name, kind, tmp_path):
    counts = go_through(tmp_path, name, kind, share=29)
    assert counts["faults"] >= 9
    assert counts["resumed"] > counts["nothing kept"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TARGETS)
def test_a_fault_at_every_call_loses_no_row(name, kind, tmp_path):
    counts = go_through(tmp_path, name, kind, share=1)
    print(f"{name}, {kind}: {counts}")
    assert counts["faults"] > 150
