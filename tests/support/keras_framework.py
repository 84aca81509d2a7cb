"""Keras' fixtures for the exporter contract, on the TensorFlow backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from exporter_framework import ExportCase, Framework
from fo_onnx_keras.plugin import KerasExporter
from keras import layers


def net() -> Any:
    """Two inputs, a batch norm and a dropout: what evaluation mode must reach; and an optimizer with its state."""
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((4,), name="right")
    x = layers.Multiply()([layers.Dense(8)(left), layers.Dense(8, activity_regularizer="l2")(right)])
    x = layers.Dropout(0.5)(layers.ReLU()(layers.BatchNormalization()(x)))
    model = keras.Model([left, right], layers.Dense(3)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.build(model.trainable_variables)
    for seed in range(5):  # in training mode, so that the running statistics are warm
        model([normal(64, 6, seed=seed), normal(64, 4, seed=seed)], training=True)
    model.layers[2].trainable = False
    kernel, _ = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel * 3, np.array([0.1, -0.2, 0.3], np.float32)])
    return model


class Attentive(keras.Model):
    """A subclassed model over token ids, with a dropout that is random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = layers.Embedding(50, 16)
        self.attention = layers.MultiHeadAttention(2, 8, dropout=0.5)
        self.out = layers.Dense(3)

    def call(self, ids: Any, training: bool | None = None) -> Any:
        x = self.embedding(ids)
        x = keras.ops.mean(x + self.attention(x, x, training=training), axis=1)
        return self.out(x) * 40


class Numpy(layers.Layer):
    """A Python function within a model."""

    def call(self, x: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(lambda a: np.sort(a, axis=1), [x], tf.float32), (None, 6))


class Sorting(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.sort, self.out = Numpy(), layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.out(self.sort(x)) * 3


def attentive() -> Any:
    keras.utils.set_random_seed(0)
    model = Attentive()
    model(np.zeros((2, 7), np.int32))
    return model


def sorting() -> Any:
    keras.utils.set_random_seed(0)
    model = Sorting()
    model(np.zeros((2, 6), np.float32))
    return model


def answer(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    rows: Any = list(inputs.values())
    return model(rows if len(rows) > 1 else rows[0], training=False).numpy().astype(np.float64)


def snapshot(model: Any) -> Any:
    layered = tuple(
        (layer.name, layer.trainable, layer.built, layer.dtype_policy.name, len(layer._losses))
        for layer in model._flatten_layers()
    )
    optimizer = getattr(model, "optimizer", None)
    # `variables` hold the state of random numbers, too.
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    return layered, tuple((v.path, str(v.dtype), v.trainable, v.numpy().tobytes()) for v in variables)


def change_one_weight(model: Any) -> None:
    weight = model.weights[0]
    value = weight.numpy()
    value.flat[0] += 1e-6
    weight.assign(value)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


FRAMEWORK = Framework(
    exporter=KerasExporter(),
    module="keras",
    cases={
        "two_inputs": ExportCase(net, {"0": normal(9, 6), "1": normal(9, 4)}),
        "by_name": ExportCase(net, {"left": normal(9, 6), "right": normal(9, 4)}),
        "token_ids": ExportCase(attentive, {"0": np.random.default_rng(1).integers(0, 50, (9, 7), np.int32)}),
    },
    unexportable=ExportCase(sorting, {"0": normal(9, 6)}),
    named_in_the_error="Sorting: ONNX has no operator for PyFunc",
    wrong_shape={"0": normal(9, 7)},
    answer=answer,
    snapshot=snapshot,
    change_one_weight=change_one_weight,
    native_paths=["Keras predict", "tf.function", "tf.function, XLA"],
    remade="from keras_framework import net as make",
)
