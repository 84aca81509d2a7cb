"""Models of every kind that JAX's libraries have, for several modules of tests."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fo_onnx_jax.plugin import JaxExporter
from jax import lax
from jax_libraries import equinox as eqx
from jax_libraries import haiku as hk
from jax_libraries import linen, nnx, train_state

from fo_onnx.contracts.options import ModelOptions, OutputOptions

EXPORTER = JaxExporter()
KEY = jax.random.key(0)
X = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
NUMPY_WEIGHT = np.random.default_rng(1).standard_normal((3, 2)).astype(np.float32)
WEIGHT = jnp.asarray(NUMPY_WEIGHT)


def forward(model: Any, x: np.ndarray = X) -> np.ndarray:
    raw = EXPORTER.native(model, {"0": x}, "cpu", ModelOptions(), OutputOptions())
    try:
        return raw.forward({"0": x})
    finally:
        raw.close()


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(2)(x)


class Trained(linen.Module):
    """Knows by an argument alone that it is not trained."""

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        return linen.Dense(2)(linen.Dropout(0.5)(x, deterministic=not train))


class TrainsByDefault(Trained):
    @linen.compact
    def __call__(self, x: Any, train: bool = True) -> Any:
        return super().__call__(x, train)


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.layers = nnx.Sequential(nnx.Linear(3, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs), jnp.tanh)
        self.drop, self.out = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.out(self.drop(self.layers(x)))


def evaluated(module: Any) -> Any:
    """Return an nnx module after it was put into evaluation mode."""
    module.eval()
    return module


class Cell(eqx.Module):
    """A single-sample classifier, as equinox's are."""

    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout
    activation: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(self, activation: Callable[[Any], Any] = jnp.tanh) -> None:
        self.linear, self.drop, self.activation = eqx.nn.Linear(3, 2, key=KEY), eqx.nn.Dropout(0.5), activation

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        return self.drop(self.activation(self.linear(x)), key=key)


def transformed(x: Any) -> Any:
    return hk.Linear(2)(jnp.tanh(hk.Linear(8)(x)))


def with_state(x: Any, is_training: bool) -> Any:
    return hk.Linear(2)(hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training))


@dataclasses.dataclass
class Parameters:
    layers: list[Any]


class Holder:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, x: Any) -> Any:
        return self.score(x)

    def score(self, x: Any) -> Any:
        return jnp.tanh(x) @ self.weight


class NumpyHolder(Holder):
    def score(self, x: Any) -> Any:
        return np.tanh(x) @ self.weight


def closes_over(value: Any, use: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: use(value, x)


def call(model: Any, x: Any) -> Any:
    return model(x)


def apply_dict(params: Any, x: Any) -> Any:
    return x @ params["w"]


def makes_a_function(x: Any) -> Any:
    def inner(y: Any) -> Any:
        return jnp.tanh(y)

    return inner(x)


def with_own_derivative() -> Any:
    @jax.custom_jvp
    def score(x: Any) -> Any:
        return jnp.tanh(x) @ NUMPY_WEIGHT

    score.defjvp(lambda primals, tangents: (score(*primals), score(*tangents)))
    return score


MODELS: dict[str, Callable[[], Any]] = {
    "jit": lambda: jax.jit(lambda x: x @ NUMPY_WEIGHT),
    "vmap": lambda: jax.vmap(lambda x: x @ NUMPY_WEIGHT),
    "checkpoint": lambda: jax.checkpoint(lambda x: x @ NUMPY_WEIGHT),
    "custom_jvp": lambda: with_own_derivative(),
    "partial": lambda: functools.partial(apply_dict, {"w": WEIGHT}),
    "names jnp": lambda: lambda x: jnp.tanh(x @ NUMPY_WEIGHT),
    "names lax": lambda: lambda x: lax.tanh(x @ NUMPY_WEIGHT),
    "names jax": lambda: lambda x: jax.nn.relu(x @ NUMPY_WEIGHT),
    "names it within": lambda: makes_a_function,
    "holds an array": lambda: lambda x: x @ WEIGHT,
    "holds a dict": lambda: closes_over({"a": [{"w": WEIGHT}]}, lambda p, x: x @ p["a"][0]["w"]),
    "holds a dataclass": lambda: closes_over(Parameters([WEIGHT]), lambda p, x: x @ p.layers[0]),
    "holds a module": lambda: closes_over(evaluated(Net()), lambda m, x: m(x)),
    "object": lambda: Holder(NUMPY_WEIGHT),
    "method": lambda: Holder(NUMPY_WEIGHT).score,
    "nnx": Net,
    "nnx.jit": lambda: nnx.jit(Net()),
    "vmapped equinox": lambda: jax.vmap(Cell()),
    "filter_jit": lambda: eqx.filter_jit(eqx.filter_vmap(Cell())),
    "filter_vmap": lambda: eqx.filter_vmap(Cell()),
    "bound linen": lambda: Dense().bind(Dense().init(KEY, X)),
    "train state": lambda: state_of(Dense()),
}


def state_of(module: Any, **fields: Any) -> Any:
    import optax

    variables = module.init(KEY, X)
    return train_state.TrainState.create(apply_fn=module.apply, params=variables["params"], tx=optax.sgd(0.1), **fields)
