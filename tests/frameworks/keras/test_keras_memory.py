"""What an export takes of the memory where Python frees no cycles by itself, as in a process with many objects."""

from __future__ import annotations

from pathlib import Path

import pytest
from fresh_python import run_python

PROGRAM = """
import gc
import keras
import numpy as np
import fo_onnx as fo
from fo_onnx.runtime.memory import peak_memory_bytes

net = keras.Sequential([keras.layers.Input((3000,)), keras.layers.Dense(5000, "relu"), keras.layers.Dense(4)])
x = np.random.default_rng(0).random((8, 3000), dtype=np.float32)
fo.generate(net, x, runner="native", progress=False)
before = peak_memory_bytes()
gc.disable()
fo.export(net, x, {path!r})
print((peak_memory_bytes() - before) // 2**20)
"""
WEIGHTS_MB = 57


@pytest.mark.slow
def test_copies_of_the_graph_are_freed(tmp_path: Path) -> None:
    """tf2onnx copies the graph, weights included, some fifty times."""
    grown_mb = int(run_python(PROGRAM.format(path=str(tmp_path / "net.onnx"))))
    assert grown_mb < 50 * WEIGHTS_MB  # 87 times without
