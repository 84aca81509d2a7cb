"""What a run and a loaded file cost: memory does not grow with the rows, and importing the store loads no library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

WRITING = """
import sys
from pathlib import Path
import numpy as np
from fo_onnx.store import RunFolder
rng = np.random.default_rng(0)
K, BATCH = 10, 4096
probs = rng.dirichlet(np.ones(K), BATCH).astype(np.float32)
labels = rng.integers(0, K, BATCH)
def run(target, rows):
    folder = RunFolder.create(Path(target), {}, {}, overwrite=False)
    sink = folder.sink(classes=K, id_kind="int", labels=True, logits=False)
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        sink.append(np.arange(start, start + n), probs[:n], labels[:n], None)
    sink.commit({})
def peak():
    # Not ru_maxrss, which a process inherits from the one that started it.
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
run(sys.argv[1] + ".warm" + sys.argv[2], 50_000)
before = peak()
run(sys.argv[1] + sys.argv[2], 2_000_000)
print(peak() - before)
"""

READING = """
import sys
from fo_onnx.store import load
from fo_onnx.distributions.columns import read_chunks
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
d = load(sys.argv[1])
d[5]
before = peak()
n = sum(len(part.probs) for part in read_chunks(d.source, ("probs",)))
assert n == 2_000_000, n
assert 1_999_999 in d
print(peak() - before)
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_two_million_rows_take_no_more_memory_than_fifty_thousand(suffix, tmp_path):
    grown_mb = float(run(WRITING, tmp_path / "x", suffix))
    # The rows themselves are 96 MB.
    assert grown_mb < 60
    if suffix == ".parquet":
        assert float(run(READING, tmp_path / f"x{suffix}")) < 60


def test_importing_the_store_loads_no_library():
    heavy = ("pyarrow", "orjson", "filelock", "safetensors", "pandas", "torch", "onnx", "onnxruntime")
    code = f"import sys, fo_onnx.store; print([m for m in {heavy!r} if m in sys.modules])"
    assert run(code).strip() == "[]"
    assert run(code.replace("fo_onnx.store;", "fo_onnx.store, orjson;")).strip() == "['orjson']"
