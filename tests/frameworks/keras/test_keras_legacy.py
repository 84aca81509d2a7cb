"""Keras 2 beside Keras 3: models of the package ``tf_keras``, and files that it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import ModelError

tf_keras = pytest.importorskip("tf_keras")
import tensorflow as tf  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*saving your model as an HDF5 file:UserWarning"),
]
layers = tf_keras.layers
_random = np.random.default_rng(0)
ROWS = _random.standard_normal((20, 6), dtype=np.float32) * 2
PAIR = (ROWS, ROWS[:, :2])
IMAGES = _random.standard_normal((20, 8, 8, 3), dtype=np.float32)


def functional(inputs: Callable[[Any, Any], Any]) -> Any:
    """Two inputs and a dropout, whose second argument would be `training` if a model took its inputs one by one."""
    left, right = layers.Input((6,), name="left"), layers.Input((2,), name="right")
    x = layers.Dropout(0.5)(layers.Concatenate()([left, right]))
    return tf_keras.Model(inputs(left, right), layers.Dense(3)(x))


class DropsByDefault(tf_keras.Model):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.out = layers.Dropout(0.5), layers.Dense(3)

    def call(self, rows: Any, training: bool = True) -> Any:
        return self.out(self.drop(rows, training=training))


def with_statistics() -> Any:
    model = tf_keras.Sequential([layers.Input((6,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)])
    model(ROWS * 3 + 1, training=True)
    return model


def subclassed() -> Any:
    model = DropsByDefault()
    model(ROWS)
    return model


def convolution(*first: Any) -> Any:
    last = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
    return tf_keras.Sequential([layers.Input((8, 8, 3)), *first, *last])


CASES: dict[str, tuple[Callable[[], Any], Any]] = {
    "statistics and dropout": (with_statistics, ROWS),
    "float64 rows": (with_statistics, ROWS.astype(np.float64)),
    "a list of inputs": (lambda: functional(lambda a, b: [a, b]), PAIR),
    "inputs by name": (lambda: functional(lambda a, b: [a, b]), {"right": PAIR[1], "left": ROWS}),
    "a dict of inputs": (lambda: functional(lambda a, b: {"left": a, "right": b}), {"right": PAIR[1], "left": ROWS}),
    "subclassed": (subclassed, ROWS),
    "convolution": (lambda: convolution(layers.Conv2D(4, 3, activation="swish")), IMAGES),
}


@pytest.mark.parametrize("name", CASES)
def test_models(name: str) -> None:
    make, data = CASES[name]
    tf_keras.utils.set_random_seed(0)
    model = make()
    given = list(data) if isinstance(data, tuple) else data
    expected = softmax(model.predict(given, verbose=0).astype(np.float64))
    for runner in ("onnx", "native"):
        result = fo.generate(model, data, runner=runner)
        assert total_variation(result.probs, expected).max() < 1e-6, runner
    assert np.std(expected, axis=0).max() > 0.02, "rows this close together agree with anything"


def test_functions_around_a_model() -> None:
    model = with_statistics()
    expected = softmax(model.predict(ROWS, verbose=0).astype(np.float64))
    for function in (tf.function(lambda rows: model(rows)), lambda rows: model(rows)):
        result = fo.generate(function, ROWS)
        assert result.meta["runner"]["kind"] == "onnx"
        assert total_variation(result.probs, expected).max() < 1e-6
    result = fo.generate(lambda rows: model.predict(rows, verbose=0), ROWS)
    assert "plain callable" in result.meta["runner"]["reason"]
    assert total_variation(result.probs, expected).max() < 1e-6


def test_refused_models() -> None:
    with pytest.raises(ModelError, match="Keras model DropsByDefault was never built"):
        fo.generate(DropsByDefault(), ROWS)
    recurrent = layers.LSTM(3, stateful=True, batch_input_shape=(4, 5, 6))
    with pytest.raises(ModelError, match="stateful: what it gives for a row depends on the batches before it"):
        fo.generate(tf_keras.Sequential([recurrent]), np.zeros((8, 5, 6), np.float32))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_that_keras_3_can_read(tmp_path: Path, suffix: str) -> None:
    model, path = convolution(layers.Conv2D(4, 3), layers.UpSampling2D(interpolation="bilinear")), tmp_path / "m"
    model.save(path.with_suffix(suffix))
    result = fo.generate(path.with_suffix(suffix), IMAGES, trust=True)
    expected = softmax(model.predict(IMAGES, verbose=0).astype(np.float64))
    assert total_variation(result.probs, expected).max() < 1e-6


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_that_it_cannot_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    model = convolution(layers.DepthwiseConv2D(3))
    model.save(path)
    message = r"written by Keras 2\.\S+, and Keras 3\.\S+ cannot read it: .*DepthwiseConv2D.*'groups': 1}. Read it with tf_keras"
    with pytest.raises(ModelError, match=message):
        fo.generate(path, IMAGES, trust=True)
    # What the message says to do.
    result = fo.generate(tf_keras.models.load_model(path), IMAGES)
    expected = softmax(model.predict(IMAGES, verbose=0).astype(np.float64))
    assert total_variation(result.probs, expected).max() < 1e-6
