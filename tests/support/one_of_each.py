"""A small model of each framework and its own rows, for programs that import frameworks in one order or another.

Run as ``python one_of_each.py torch keras jax``: imports them in that order, runs a model of each by ``fo_onnx.generate``
and prints one JSON object: by framework the runner, the reason, and the largest total variation from the framework's own rows.
``--without NAME`` makes a package unimportable, as it is where it is not installed.
"""

from __future__ import annotations

import importlib
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PACKAGES = {"torch": ["torch"], "keras": ["tensorflow", "keras"], "jax": ["jax"]}


class Without:
    """A finder of modules that does not find some packages, as where they are not installed."""

    def __init__(self, finder: Any, names: Sequence[str]) -> None:
        self.finder, self.names = finder, names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        return None if fullname.partition(".")[0] in self.names else self.finder.find_spec(fullname, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((30, 6), dtype=np.float32)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def of_torch() -> tuple[Any, np.ndarray]:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with torch.no_grad():
        net[2].weight.mul_(6)
        return net, softmax(net(torch.from_numpy(rows())).numpy())


def of_keras() -> tuple[Any, np.ndarray]:
    import keras

    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)])
    net.layers[1].set_weights([net.layers[1].get_weights()[0] * 6, np.zeros(3)])
    return net, softmax(keras.ops.convert_to_numpy(net(rows(), training=False)))


def of_jax() -> tuple[Any, np.ndarray]:
    import jax
    import jax.numpy as jnp

    first, second = jax.random.normal(jax.random.key(0), (6, 8)), jax.random.normal(jax.random.key(1), (8, 3)) * 2

    def net(x: jax.Array) -> jax.Array:
        return jnp.maximum(x @ first, 0) @ second

    return net, softmax(np.asarray(net(rows())))


MAKE: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {"torch": of_torch, "keras": of_keras, "jax": of_jax}


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    without = [name for flag, name in itertools.pairwise(arguments) if flag == "--without"]
    order = [a for a in arguments if a in PACKAGES and a not in without]
    sys.meta_path[:] = [Without(finder, without) for finder in sys.meta_path]
    for framework in order:
        for package in PACKAGES[framework]:
            if package not in without:
                importlib.import_module(package)

    import free_exports  # noqa: F401

    import fo_onnx as fo
    from fo_onnx.distributions.probabilities import total_variation

    found = {}
    for framework in order:
        model, expected = MAKE[framework]()
        dists = fo.generate(model, rows(), progress=False)
        runner = dists.meta["runner"]
        found[framework] = {
            "framework": dists.meta["model"]["framework"],
            "kind": runner["kind"],
            "reason": runner["reason"],
            "max_tv": float(total_variation(expected, dists.probs).max()),
        }
    found["loaded"] = [m for m in ("torch", "tensorflow", "keras", "jax") if m in sys.modules]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
