"""Rows that depend on the rows beside them, or on chance: said in every framework and every way to run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from planted_effects import MIXERS

import fo_onnx as fo

WEIGHTS = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
X = np.random.default_rng(0).standard_normal((300, 6), dtype=np.float32)


def generate(model: Any, word: str, **options: Any) -> fo.Distributions:
    """Rows of a model, of which a warning must say `word`; all other warnings are let be."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dists = fo.generate(model, X, output="logits", progress=False, **options)
    assert any(word in str(w.message) for w in caught if w.category is fo.FallbackWarning)
    assert word in dists.meta["runner"]["reason"]
    return dists


def torch_net(effect: Any, *, exportable: bool = True) -> Any:
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.from_numpy(WEIGHTS))

        def forward(self, x: Any) -> Any:
            z = effect(torch, x @ self.weight)
            return z if exportable else z - z.median(1, keepdim=True).values

    return Net().eval()


@pytest.mark.parametrize("name", MIXERS)
def test_torch_natively(name: str) -> None:
    generate(torch_net(MIXERS[name]), "mixes", runner="native")


@pytest.mark.parametrize("name", MIXERS)
def test_torch_where_the_export_fails(name: str) -> None:
    generate(torch_net(MIXERS[name], exportable=False), "mixes")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("attending", "ranked", "summed") else pytest.mark.slow) for n in MIXERS]
)
def test_torch_where_it_works_and_its_file(name: str, tmp_path: Any) -> None:
    net = torch_net(MIXERS[name])
    assert generate(net, "mixes").meta["runner"]["kind"] == "native"
    assert generate(net, "mixes", runner="onnx", batch_size=50).meta["runner"]["kind"] == "onnx"
    exported = fo.export(net, X, tmp_path / "net.onnx", verify=False, output="logits")
    with pytest.warns(fo.FallbackWarning, match="runs row by row: the model mixes"):
        dists = fo.generate(exported, X)
    assert dists.meta["engine"]["batch_size"] == 1
    with pytest.raises(fo.ParityError, match="mixes the rows of a batch"):
        fo.export(net, X, tmp_path / "other.onnx", output="logits")


@pytest.mark.parametrize("options", [{}, {"runner": "native"}], ids=["auto", "native"])
@pytest.mark.parametrize("name", MIXERS)
def test_keras(name: str, options: dict[str, str]) -> None:
    keras = pytest.importorskip("keras")

    class Effect(keras.layers.Layer):
        def call(self, z: Any) -> Any:
            return MIXERS[name](keras.ops, z)

    net = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, use_bias=False), Effect()])
    net.set_weights([WEIGHTS])
    generate(net, "mixes", **options)


@pytest.mark.parametrize("options", [{}, {"runner": "native"}], ids=["auto", "native"])
@pytest.mark.parametrize("name", MIXERS)
def test_jax(name: str, options: dict[str, str]) -> None:
    jnp = pytest.importorskip("jax.numpy")
    generate(lambda x: MIXERS[name](jnp, x @ jnp.asarray(WEIGHTS)), "mixes", framework="jax", **options)


@pytest.mark.parametrize("effect", [*MIXERS, "noise"])
def test_scikit_learn(effect: str) -> None:
    base = pytest.importorskip("sklearn.base")
    rng = np.random.default_rng(0)

    class Net(base.ClassifierMixin, base.BaseEstimator):
        def fit(self, x: Any, y: Any) -> Any:
            self.classes_ = np.arange(4)
            return self

        def predict_proba(self, x: Any) -> Any:
            z = np.asarray(x) @ WEIGHTS
            z = z + rng.standard_normal(z.shape) if effect == "noise" else MIXERS[effect](np, z)
            e = np.exp(z - z.max(1, keepdims=True))
            return e / e.sum(1, keepdims=True)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fo.generate(Net().fit(X, None), X, progress=False)
    assert any(("samples" if effect == "noise" else "mixes") in str(w.message) for w in caught)


@pytest.mark.parametrize("exportable", [True, False])
@pytest.mark.parametrize("options", [{}, {"runner": "native"}], ids=["auto", "native"])
def test_torch_that_samples(options: dict[str, str], exportable: bool) -> None:
    generate(torch_net(lambda torch, z: z + torch.randn_like(z), exportable=exportable), "samples", **options)


@pytest.mark.parametrize("options", [{}, {"runner": "native"}], ids=["auto", "native"])
def test_keras_that_samples(options: dict[str, str]) -> None:
    keras = pytest.importorskip("keras")

    class Noise(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, z: Any) -> Any:
            return z + keras.random.normal(keras.ops.shape(z), seed=self.seeds)

    net = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4), Noise()])
    generate(net, "samples", **options)
