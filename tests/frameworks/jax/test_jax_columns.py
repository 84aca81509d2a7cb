"""A lone column of any name is a JAX model's one input, unless the model takes a dict with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

X = np.random.default_rng(0).standard_normal((40, 6), dtype=np.float32)
WEIGHT = jnp.asarray(np.random.default_rng(1).standard_normal((6, 3), dtype=np.float32) * 3)
SAMPLES = [{"image": row, "label": i % 3} for i, row in enumerate(X)]


def plain(x: Any) -> Any:
    return x @ WEIGHT


def with_an_option(x: Any, scale: float = 1.0) -> Any:
    return x @ WEIGHT * scale


def of_a_dict(batch: Any) -> Any:
    return batch["image"] @ WEIGHT


def of_any_arrays(*arrays: Any) -> Any:
    return arrays[0] @ WEIGHT


@pytest.mark.parametrize(
    "model", [plain, with_an_option, of_a_dict, jax.jit(of_a_dict), jax.vmap(plain), of_any_arrays]
)
def test_a_lone_column(model: Callable[..., Any]) -> None:
    expected = np.asarray(jax.nn.softmax(jnp.asarray(X) @ WEIGHT))

    dists = fo.generate(model, SAMPLES, framework="jax")

    assert dists.meta["runner"]["kind"] == "onnx"
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_a_model_that_takes_it_in_no_form() -> None:
    with pytest.raises(fo.errors.DataError, match=r"running plain in JAX on x: float32 \(40, 5\) failed"):
        fo.generate(plain, {"image": X[:, :5]}, framework="jax")
