"""What a process keeps of models that are exported and run one after another: `main`.

It prints how many weights are still there at the end, and by how many models' weights the memory grew over `COUNTED` models after some
that warm up. That is done twice, and the lesser counts: pools of a framework grow once, and what keeps models grows each time.
"""

from __future__ import annotations

import ctypes
import gc
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fo_onnx as fo

WARM_UPS, COUNTED = 3, 7
SIZE = 2_000
"""Rows and columns of the largest weight, of 16 MB."""
_normal = np.random.default_rng(0).standard_normal
ROWS = _normal((32, SIZE), dtype=np.float32)


def make_torch() -> tuple[Any, Any]:
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE), torch.nn.ReLU(), torch.nn.Linear(SIZE, 4))
    return net, net[0].weight


def make_keras() -> tuple[Any, Any]:
    import keras

    # TensorFlow registers a gradient for each call of silu.
    dense = keras.layers.Dense(SIZE, activation="silu")
    return keras.Sequential([keras.Input((SIZE,)), dense, keras.layers.Dense(4)]), dense.kernel


def make_tensorflow() -> tuple[Any, Any]:
    import tensorflow as tf

    first, last = tf.Variable(weight(SIZE)), tf.constant(weight(4))
    return tf.function(lambda rows: tf.tanh(rows @ first) @ last), first


def make_jax() -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    first, last = jnp.asarray(weight(SIZE)), jnp.asarray(weight(4))
    return lambda rows: jax.nn.silu(rows @ first) @ last, first


def make_flax() -> tuple[Any, Any]:
    from flax import nnx

    net = nnx.Sequential(nnx.Linear(SIZE, SIZE, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(SIZE, 4, rngs=nnx.Rngs(1)))
    return net, net.layers[0].kernel[...]


def make_sklearn() -> tuple[Any, Any]:
    from sklearn.neural_network import MLPClassifier

    classifier = MLPClassifier((SIZE,), max_iter=1).fit(ROWS, np.arange(len(ROWS)) % 4)
    return classifier, classifier


def make_callable() -> tuple[Any, Any]:
    first, last = weight(SIZE), weight(4)
    return lambda rows: np.tanh(rows @ first) @ last, first


def weight(columns: int) -> np.ndarray:
    return (_normal((SIZE, columns)) / SIZE**0.5).astype(np.float32)


def run(make: Callable[[], tuple[Any, Any]], folder: Path) -> weakref.ref[Any]:
    model, first_weight = make()
    if make is not make_callable:
        fo.export(model, ROWS, folder / "model.onnx", overwrite=True)
    fo.generate(model, ROWS, runner="native", progress=False)
    return weakref.ref(first_weight)


def resident_bytes() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free, but not given back to the system
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main(kind: str) -> None:
    make = globals()[f"make_{kind}"]
    weights, sizes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(WARM_UPS + 2 * COUNTED):
            weights.append(run(make, Path(folder)))
            sizes.append(resident_bytes())
    growth = min(np.diff(sizes[WARM_UPS - 1 :: COUNTED])) / (4 * SIZE**2)
    print(sum(ref() is not None for ref in weights), f"{growth:.2f}")
