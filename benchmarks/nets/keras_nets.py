"""The nets in Keras: of keras.applications without weights, or written out, with weights from a seed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from . import rows


def _mlp() -> Any:
    net = keras.Sequential([layers.Input((784,)), layers.Dense(256, "relu"), layers.Dense(rows.CLASSES)])
    return _trained(net, rows.digits(28)[0].reshape(-1, 784))


def _cnn() -> Any:
    net = keras.Sequential([
        layers.Input((32, 32, 3)), layers.Conv2D(16, 3, padding="same", activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dense(rows.CLASSES),
    ])  # fmt: skip
    return _trained(net, np.repeat(rows.digits(32)[0][..., None], 3, axis=-1))


def _application(make: Callable[..., Any], side: int) -> Any:
    body = make(weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3))
    net = keras.Sequential([body, layers.Dense(rows.CLASSES)])
    return _spread(net, rows.channels_last(rows.images(64, side)))


def _encode(x: Any, blocks: int, heads: int, width: int) -> Any:
    """Apply blocks of attention and a multilayer perceptron, each after a normalisation."""
    for _ in range(blocks):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.Dense(4 * width, "gelu")(layers.LayerNormalization(epsilon=1e-6)(x))
        x = layers.Add()([x, layers.Dense(width)(y)])
    return layers.LayerNormalization(epsilon=1e-6)(x)


class Places(layers.Layer):
    """Adds a learned vector to each place."""

    def build(self, shape: Any) -> None:
        """Make the vectors."""
        self.places = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal")

    def call(self, x: Any) -> Any:
        """Return the sum."""
        return x + self.places


def _vit() -> Any:
    images = layers.Input((224, 224, 3))
    patches = layers.Reshape((196, 192))(layers.Conv2D(192, 16, 16)(images))
    x = layers.GlobalAveragePooling1D()(_encode(Places()(patches), 12, 3, 192))
    return _spread(keras.Model(images, layers.Dense(rows.CLASSES)(x)), rows.channels_last(rows.images(16, 224)))


def _bert() -> Any:
    tokens = layers.Input((rows.TOKENS,), dtype="int64")
    x = layers.GlobalAveragePooling1D()(_encode(Places()(layers.Embedding(rows.VOCABULARY, 256)(tokens)), 4, 4, 256))
    return _spread(keras.Model(tokens, layers.Dense(rows.CLASSES)(x)), rows.tokens(16))


def _lstm() -> Any:
    net = keras.Sequential([layers.Input((rows.STEPS, rows.FEATURES)), layers.LSTM(128), layers.Dense(rows.CLASSES)])
    return _spread(net, rows.sequences(64))


def _trained(net: Any, samples: np.ndarray) -> Any:
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(samples, rows.digits(28)[1], batch_size=64, epochs=12, verbose=0)
    return net


def _spread(net: Any, samples: np.ndarray) -> Any:
    """Return the net with the samples' means and logits that differ from row to row."""
    for layer in net._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            # With those from the start the signal fades from layer to layer, and rounding is all that is left in the end.
            layer.momentum = 0.0
    net(samples, training=True)
    last = net.layers[-1]
    kernel, bias = last.get_weights()
    mean, scale = rows.spread_of(net(samples, training=False))
    last.set_weights([kernel * scale, (bias - mean) * scale])
    return net


NETS: dict[str, Callable[[], Any]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet50": functools.partial(_application, keras.applications.ResNet50, 64),
    "mobilenet": functools.partial(_application, keras.applications.MobileNetV2, 96),
    "vit": _vit,
    "bert": _bert,
    "lstm": _lstm,
}


@functools.cache
def _make(name: str) -> Any:
    keras.utils.set_random_seed(0)
    return NETS[name]()


def __getattr__(name: str) -> Any:
    if name not in NETS:
        raise AttributeError(name)
    return _make(name)
