"""Files with bytes flipped, cut, inserted, swapped and doubled: an error that names the file, the same rows, or a report."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mutations import MUTATIONS

from fo_onnx.distributions import Distributions
from fo_onnx.errors import FoOnnxError
from fo_onnx.store import FORMATS, RunFolder, ShardLimits, check, load, save

N, K = 40, 3
QUICK, MANY = 100, 2000
RUN_FILES = ("run.json", "manifest.json", "journal.jsonl", "data/part-000000000000.parquet")


def result(text: bool) -> Distributions:
    rng = np.random.default_rng(4)
    return Distributions(
        rng.dirichlet(np.full(K, 0.4), N).astype(np.float32),
        ids=[f"é{i}" for i in range(N)] if text else np.arange(N) * 3,
        labels=np.arange(N) % K,
        logits=rng.normal(size=(N, K)).astype(np.float32),
        meta={"model": {"name": "net", "class_names": ["cat", "dog", "owl"]}, "user": {"a": 1}},
    )


def write_result(target: Path, text: bool) -> Path:
    d = result(text)
    if target.suffix:
        return save(d, target)
    run = RunFolder.create(target, {}, {}, overwrite=False, limits=ShardLimits(size_bytes=12 * K * 4, group_rows=8))
    sink = run.sink(classes=K, id_kind=d.id_kind, labels=True, logits=True)
    for start in range(0, N, 8):
        part = d.source.read(start, start + 8)
        sink.append(part.ids, part.probs, part.labels, part.logits)
    sink.commit(d.meta)
    return target


def read_all(path: Path):
    d = load(path)
    return d, (d.probs, d.ids, d.labels, d.logits, d.class_names, list(d), d.metrics(), repr(d))


def problem_of(path: Path, whole: Distributions) -> str | None:
    """What is wrong with how a changed file is read, if anything."""
    try:
        d, _ = read_all(path)
    except FoOnnxError as err:
        return None if path.name in str(err) else f"an error that does not name the file: {err}"
    except Exception as err:
        return f"{type(err).__name__}: {err}"
    try:
        report = check(path)
    except Exception as err:
        return f"check raises {type(err).__name__}: {err}"
    same = d.equals(whole) and d.class_names == whole.class_names
    return "a change that nobody sees" if report.ok and not same else None


def mutate(folder: Path, suffix: str, *, first: int, count: int) -> list[str]:
    problems = []
    originals = [write_result(folder / f"whole{text}{suffix}", text) for text in (False, True)]
    wholes = [load(path) for path in originals]
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        text = seed % 2
        path = folder / f"changed{suffix}"
        if suffix:
            changed, source = path, originals[text]
        else:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(originals[text], path)
            source = changed = path / RUN_FILES[seed % len(RUN_FILES)]
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        changed.write_bytes(mutation(bytearray(source.read_bytes()), rng))
        if problem := problem_of(path, wholes[text]):
            problems.append(f"{seed} {mutation.__name__} {changed.name}: {problem}")
    return problems


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_mutated_files(suffix, tmp_path):
    assert mutate(tmp_path, suffix, first=0, count=QUICK) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_many_mutated_files(suffix, tmp_path):
    assert mutate(tmp_path, suffix, first=QUICK, count=MANY) == []


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_a_mutation_that_is_read_as_it_is_would_be_seen(suffix, tmp_path):
    """The tests above could fail: other rows in a sound file are a problem."""
    path = write_result(tmp_path / f"d{suffix}", False)
    whole = load(path)
    other = Distributions(whole.probs[::-1].copy(), meta={"model": {"class_names": list(whole.class_names)}})
    assert problem_of(path, whole) is None
    assert problem_of(path, other) == "a change that nobody sees"
