"""JAX's fixtures for the exporter contract."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from exporter_framework import ExportCase, Framework
from flax import nnx
from fo_onnx_jax.plugin import JaxExporter


class Net(nnx.Module):
    """Two inputs, a batch norm and a dropout: what evaluation mode must reach."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.left, self.right = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(4, 8, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, left: jax.Array, right: jax.Array) -> jax.Array:
        hidden = nnx.relu(self.norm(self.left(left) * self.right(right)))
        return self.out(self.drop(hidden)) * 3


class Predict:
    """A function over arrays that it holds in a dict, as scripts without a library have it."""

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0), 2)
        self.params = {"w": jax.random.normal(keys[0], (6, 3)) * 2, "b": jax.random.normal(keys[1], (3,))}

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.tanh(x) @ self.params["w"] + self.params["b"]


class Branching(Predict):
    """Looks at values in Python, which cannot be traced."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) * (3 if jnp.abs(x).max() < 1e6 else 1)


def net() -> Net:
    model = Net()
    rng = np.random.default_rng(0)
    for _ in range(5):  # in training mode, so that the running statistics are warm
        model(
            jnp.asarray(rng.standard_normal((64, 6)), jnp.float32),
            jnp.asarray(rng.standard_normal((64, 4)), jnp.float32),
        )
    model.out.bias.value = jnp.asarray([0.3, -0.2, 0.1])
    model.drop.eval()
    return model


def answer(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    if isinstance(model, nnx.Module):
        model = nnx.merge(*nnx.split(model))
        model.eval()
    return np.asarray(model(*map(jnp.asarray, inputs.values())), np.float64)


def snapshot(model: Any) -> Any:
    if not isinstance(model, nnx.Module):
        return {k: np.asarray(v).tobytes() for k, v in model.params.items()}
    modes = [
        (n, getattr(m, "deterministic", None), getattr(m, "use_running_average", None)) for n, m in model.iter_modules()
    ]
    state = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey)))
    return modes, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def change_one_weight(model: Any) -> None:
    if isinstance(model, nnx.Module):
        model.out.kernel.value = model.out.kernel.value.at[0, 0].add(1e-6)
    else:
        model.params["w"] = model.params["w"].at[0, 0].add(1e-6)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


FRAMEWORK = Framework(
    exporter=JaxExporter(),
    module="jax",
    cases={
        "two_inputs": ExportCase(net, {"0": normal(9, 6), "1": normal(9, 4)}),
        "by_name": ExportCase(net, {"left": normal(9, 6), "right": normal(9, 4)}),
        "callable_object": ExportCase(Predict, {"0": normal(9, 6)}),
    },
    unexportable=ExportCase(Branching, {"0": normal(9, 6)}),
    named_in_the_error="Branching",
    wrong_shape={"0": normal(9, 7)},
    answer=answer,
    snapshot=snapshot,
    change_one_weight=change_one_weight,
    native_paths=["jax.jit"],
    remade="from jax_framework import net as make",
)
