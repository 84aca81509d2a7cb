"""Run by test_keras_exports.py in a process of its own, with KERAS_BACKEND set: the named checks on that backend."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ["FO_ONNX_CACHE_GB"] = "0"
import free_exports  # noqa: F401
import keras
import numpy as np
import pytest
from keras import layers
from keras_cases import CASES, normal, scaled, sequential
from keras_truth import check_in_onnx, probs

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import DataError, ModelError
from fo_onnx.models import plugins

BACKEND = keras.config.backend()


def same(model: Any, rows: Any, found: Any, where: str) -> None:
    assert total_variation(probs(model, rows), found).max() < 1e-5, where


def any_length() -> None:
    """Recurrent layers over sequences of any length are right for every length and batch, whichever way they run."""
    ids = [layers.Embedding(50, 8), layers.LSTM(16)]
    models = [
        (sequential((None, 8), layers.LSTM(16)), lambda n, time: normal(n, time, 8)),
        (
            sequential((None,), *ids, dtype="int32"),
            lambda n, t: np.random.default_rng(t).integers(0, 50, (n, t), np.int32),
        ),
    ]
    for model, rows_of in models:
        scaled(model, lambda n, rows_of=rows_of: rows_of(n, 9))
        with pytest.raises(fo.ExportError, match="recurrent layers, and its input 'input' sequences of any length"):
            fo.generate(model, rows_of(20, 9), runner="onnx")
        with warnings.catch_warnings(), fo.Engine(model) as engine:
            warnings.simplefilter("ignore", fo.FallbackWarning)
            runner = engine.generate(rows_of(20, 9)).meta["runner"]
            assert runner["kind"] == "native", runner
            # JAX's exporter runs loops natively by choice.
            assert ("recurrent layers" if BACKEND == "torch" else "lax.scan") in runner["reason"], runner
            for n, time in ((20, 9), (3, 9), (7, 17), (1, 4), (5, 1)):
                same(model, rows_of(n, time), engine.predict(rows_of(n, time)), f"{n} rows of {time} steps")


def masked() -> None:
    """What cannot be traced runs natively, and right."""
    model, rows_of = CASES["lstm_mask_emb"].make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", fo.FallbackWarning)
        found = fo.generate(model, rows_of(20))
    assert found.meta["runner"]["kind"] == "native"
    assert any("GuardOnDataDependentSymNode" in str(w.message) for w in caught)
    same(model, rows_of(20), found.probs, "masked")


def closure() -> None:
    model, rows_of = CASES["sequential_cnn"].make()
    rows = rows_of(20)

    def doubled(x: Any) -> Any:
        return keras.ops.log(model(x)) * 1.0

    assert [e.name for e in plugins.exporters() if e.accepts(doubled)] == ["keras"]
    same(model, rows, fo.generate(doubled, rows, runner="onnx").probs, "closure")


def devices() -> None:
    model, rows_of = CASES["sequential_cnn"].make()
    found = fo.generate(model, rows_of(20), runner="native", device="cpu")
    same(model, rows_of(20), found.probs, "native")
    exporter = plugins.exporter("keras")
    assert exporter.versions()["keras_backend"] == BACKEND
    assert exporter.prefer_native(model, {"0": rows_of(3)}) is None
    with pytest.raises(fo.DeviceError, match="cuda:7"):
        fo.generate(model, rows_of(20), runner="native", device="cuda:7")
    with tempfile.TemporaryDirectory() as folder:
        exported = fo.export(model, rows_of(20), Path(folder) / "model.onnx")
        assert exported.spec.framework == "keras"
        assert str(exported.spec.inputs[0]) == "input: float32 (n, 8, 8, 3)"


def half() -> None:
    """Policies of half precision, pure and mixed, are computed in float32 and compared with themselves."""
    for policy in ("mixed_bfloat16", "float16"):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            model = sequential((8, 8, 3), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten())
        finally:
            keras.config.set_dtype_policy("float32")
        rows = normal(20, 8, 8, 3)
        in_half = keras.ops.convert_to_numpy(keras.ops.cast(model(rows, training=False), "float32"))
        found = fo.generate(model, rows, runner="onnx")
        gap = total_variation(softmax(in_half.astype(np.float64)), found.probs).max()
        assert 1e-6 < gap < 0.1, f"{policy} must show the difference: {gap}"
        told = found.meta["parity"]["original_gap"]
        assert gap / 3 < told < gap * 3, (policy, gap, told)
        assert {layer.dtype_policy.name for layer in model.layers} == {policy}


def sigmoid() -> None:
    """A lone sigmoid is told to be the probability of the second class."""
    model = keras.Sequential([layers.Input((6,)), layers.Dense(1, "sigmoid", kernel_initializer="he_normal")])
    rows = normal(20, 6)
    p = keras.ops.convert_to_numpy(keras.ops.stop_gradient(model(rows))).astype(np.float64).ravel()
    found = fo.generate(model, rows, runner="onnx")
    assert found.meta["model"]["output"] == "binary_probs"
    assert total_variation(np.stack([1 - p, p], axis=1), found.probs).max() < 1e-6


def misfit() -> None:
    """What the other framework's runner says comes in one line."""
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3)])
    with pytest.raises(fo.DataError) as caught:
        fo.generate(model, normal(20, 5))
    text = str(caught.value)
    assert "expected axis -1 of input shape to have value 6" in text
    assert not {"\n", "\x1b"} & set(text), text
    assert ".." not in text


class Counting(layers.Layer):
    """A layer that counts its calls."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x * self.calls


def counting() -> None:
    """What a call assigns is put back."""
    model = keras.Sequential([layers.Input((6,)), Counting(), layers.Dense(3, kernel_initializer="he_normal")])
    expected = probs(model, normal(20, 6))
    model.layers[0].calls.assign(0.0)
    found = fo.generate(model, normal(20, 6), runner="native", batch_size=5)
    assert total_variation(expected, found.probs).max() < 1e-5
    assert float(model.layers[0].calls.value) == 0


def identity() -> None:
    """A model has the same fingerprint after it has run, and another one with other weights."""
    exporter = plugins.exporter("keras")
    model, rows_of = CASES["subclassed"].make()
    before = exporter.fingerprint(model, {})
    model.predict(rows_of(3), verbose=0)
    assert exporter.fingerprint(model, {}) == before
    model.set_weights([w + 1 for w in model.get_weights()])
    assert exporter.fingerprint(model, {}) != before


def text() -> None:
    """Text is refused in one way or another, never by the backend's own error."""
    words = layers.TextVectorization(vocabulary=["a", "b"], output_mode="count")
    model = keras.Sequential([layers.Input((1,), dtype="string", name="review"), words, layers.Dense(3)])
    texts = np.array([["a b"], ["b"]] * 4)
    with pytest.raises(DataError, match="numbers were expected"):
        fo.generate(model, texts)
    frame = pytest.importorskip("pandas").DataFrame({"review": texts[:, 0]})
    with pytest.raises(
        ModelError, match=f"TensorFlow backend only, and runs on {BACKEND}. Set KERAS_BACKEND=tensorflow"
    ):
        fo.generate(model, frame)


def without_graphs() -> None:
    model, rows_of = CASES["subclassed"].make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", fo.FallbackWarning)
        found = fo.generate(model, rows_of(20))
    assert f"the {BACKEND} backend of Keras has no graph" in str(caught[-1].message)
    same(model, rows_of(20), found.probs, "eager")


if __name__ == "__main__":
    print("done")
    for name in sys.argv[1:]:
        check = globals().get(name)
        check() if check is not None else check_in_onnx(name)
        print(name)
