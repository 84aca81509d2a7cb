"""Rows with NaN in their input get no distribution, in ONNX, natively and on replicas; the others get theirs.

TensorFlow's ReLU makes zeros of NaN on some processors, so that finite outputs say nothing about such rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo

tf = pytest.importorskip("tensorflow")

ROWS, NAN_ROWS = 300, [3, 280]


def data() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(ROWS, 6)).astype(np.float32)
    x[NAN_ROWS, 2] = np.nan
    return x


def net() -> Any:
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [tf.keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(3)]
    )


@pytest.mark.parametrize("runner", ["onnx", "auto", "native"])
def test_such_rows_are_bad_rows(runner: str, tmp_path: Path) -> None:
    out, model = tmp_path / "rows.parquet", net()
    found = fo.generate(model, data(), runner=runner, out=out, on_error="record")
    assert found.meta["runner"]["kind"] == ("native" if runner == "native" else "onnx")
    assert found.meta["rows"] == {"written": ROWS - 2, "skipped": 0, "quarantined": 2}
    assert not any(i in found for i in NAN_ROWS)
    assert (tmp_path / "rows.parquet.errors.jsonl").read_text().count("there is NaN in its input") == 2
    kept = [i for i in range(ROWS) if i not in NAN_ROWS]
    assert np.abs(found.probs - tf.nn.softmax(model(data()[kept])).numpy()).max() < 1e-5


def test_on_replicas_too() -> None:
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = net()
    found = fo.generate(model, data(), runner="native", on_error="skip")
    assert list(found) == [i for i in range(ROWS) if i not in NAN_ROWS]
