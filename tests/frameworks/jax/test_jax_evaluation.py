"""Models in evaluation mode, while the caller's stay as they are; modules that only the caller can switch are refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import ModelError, RunError

jax = pytest.importorskip("jax")
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import nnx  # noqa: E402
from jax_nets import Cell, Net, X, call, closes_over, evaluated, forward  # noqa: E402


class Scored(Net):
    def score(self, x: Any) -> Any:
        return 2 * self(x)


class TestOnACopy:
    """The module is given itself, or within what JAX and functools wrap it in."""

    @pytest.mark.parametrize(
        "wrap",
        [lambda m: m, lambda m: m.__call__, nnx.jit, jax.jit, functools.partial, lambda m: jax.jit(functools.partial(m)),
         lambda m: jax.vmap(m), lambda m: jax.jit(jax.vmap(m))],
        ids=["itself", "method", "nnx.jit", "jit", "partial", "jit of partial", "vmap", "jit of vmap"],
    )  # fmt: skip
    def test_nnx(self, wrap: Any) -> None:
        net = Net()
        before = jax.tree.map(lambda a: a.copy(), nnx.state(net, nnx.BatchStat))

        np.testing.assert_allclose(forward(wrap(net)), evaluated(Net())(X), atol=1e-6)

        assert not net.drop.deterministic
        assert not net.layers.layers[1].use_running_average
        assert int(net.drop.rngs.count[...]) == 0
        jax.tree.map(np.testing.assert_array_equal, before, nnx.state(net, nnx.BatchStat))

    @pytest.mark.parametrize(
        "wrap",
        [jax.vmap, eqx.filter_vmap, lambda m: eqx.filter_jit(eqx.filter_vmap(m)), lambda m: jax.jit(jax.vmap(m)),
         lambda m: jax.vmap(functools.partial(m, key=None)), lambda m: jax.vmap(m.__call__)],
        ids=["vmap", "filter_vmap", "filter_jit", "jit of vmap", "vmap of partial", "vmap of method"],
    )  # fmt: skip
    def test_equinox(self, wrap: Any) -> None:
        cell = Cell()
        expected = jax.vmap(eqx.nn.inference_mode(cell))(X)

        np.testing.assert_allclose(forward(wrap(cell)), expected, atol=1e-6)

        assert not cell.drop.inference

    def test_another_method_than_the_call(self) -> None:
        np.testing.assert_allclose(forward(Scored().score), 2 * evaluated(Net())(X), atol=1e-6)

    def test_the_arguments_of_vmap_stay(self) -> None:
        cell = Cell()
        expected = jax.vmap(eqx.nn.inference_mode(cell))(X)
        across = jax.vmap(cell, in_axes=1, out_axes=1, axis_name="rows")
        np.testing.assert_allclose(forward(jax.vmap(lambda x: x)), X)
        np.testing.assert_allclose(forward(across, X.T), expected.T, atol=1e-6)

    def test_other_wrappers_of_vmap_are_left_as_they_are(self) -> None:
        cell = eqx.nn.inference_mode(Cell())
        np.testing.assert_allclose(forward(jax.checkpoint(jax.vmap(cell))), jax.vmap(cell)(X), atol=1e-6)
        with pytest.raises(ModelError, match=r"reaches a Cell in training mode"):
            forward(jax.checkpoint(jax.vmap(Cell())))


class Pipe:
    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, x: Any) -> Any:
        return self.net(x)


NET, CELL = Net(), Cell()


class NamesNet:
    def __call__(self, x: Any) -> Any:
        return NET(x)


class NamesCell:
    def __call__(self, x: Any) -> Any:
        return jax.vmap(CELL)(x)


class LocalOnly:
    """Has an attribute and a local variable that are named like the modules at the top of this file."""

    def __init__(self) -> None:
        self.NET = evaluated(Net())

    def __call__(self, x: Any) -> Any:
        CELL = self.NET
        return CELL(x)


def split(net: Any) -> Callable[[Any], Any]:
    graph, state = nnx.split(net)
    return lambda x: nnx.merge(graph, state)(x)


def by_default(net: Any) -> Callable[[Any], Any]:
    return lambda x, m=net: m(x)


HELD: dict[str, Callable[[Any], Any]] = {
    "closure": lambda m: lambda x: m(x),
    "jitted closure": lambda m: jax.jit(lambda x: m(x)),
    "default": by_default,
    "argument of a partial": lambda m: functools.partial(call, m),
    "object": Pipe,
    "containers": lambda m: closes_over([{"m": m}], lambda h, x: h[0]["m"](x)),
    "set": lambda m: closes_over({m}, lambda h, x: next(iter(h))(x)),
    "namespace": lambda m: closes_over(SimpleNamespace(m=m), lambda n, x: n.m(x)),
}
"""Ways to hold a module that only the caller can switch."""


class TestHeldByAFunction:
    @pytest.mark.parametrize("way", HELD)
    def test_a_module_in_training_mode_is_refused_with_its_cure(self, way: str) -> None:
        with pytest.raises(ModelError, match=r"reaches a Net in training mode.*Call \.eval\(\) on it first"):
            forward(HELD[way](Net()))
        np.testing.assert_allclose(forward(HELD[way](evaluated(Net()))), evaluated(Net())(X), atol=1e-6)

    @pytest.mark.parametrize("runner", ["onnx", "native"])
    @pytest.mark.parametrize(
        ("model", "text"),
        [
            (NamesNet(), r"NamesNet reaches a Net in training mode.*Call \.eval\(\) on it first"),
            (lambda x: NamesNet()(x), r"reaches a Net in training mode"),
            (NamesCell(), r"reaches a Cell in training mode.*equinox\.nn\.inference_mode\(model\) first"),
            (eqx.filter_vmap(lambda x: CELL(x)), r"reaches a Cell in training mode"),
            (split(Net()), r"reaches a GraphDef in training mode.*Call \.eval\(\) on its module before nnx\.split"),
        ],
    )
    def test_through_the_verb(self, model: Any, text: str, runner: str) -> None:
        before = jax.tree.map(lambda a: a.copy(), nnx.state(NET, nnx.BatchStat))
        with pytest.raises(ModelError, match=text):
            fo.generate(model, X, runner=runner)
        jax.tree.map(np.testing.assert_array_equal, before, nnx.state(NET, nnx.BatchStat))

    def test_a_dropout_that_drops_nothing_is_not_refused(self) -> None:
        attention = eqx.nn.MultiheadAttention(1, 3, key=jax.random.key(0))
        assert not attention.dropout.inference
        rows = np.stack([X, X + 1])
        np.testing.assert_allclose(
            forward(jax.vmap(lambda x: attention(x, x, x)), rows), jax.vmap(attention)(rows, rows, rows), atol=1e-6
        )
        drop = nnx.Dropout(0.0, rngs=nnx.Rngs(0))
        np.testing.assert_allclose(forward(lambda x: drop(x)), X)

    def test_names_that_are_no_globals_refuse_nothing(self) -> None:
        np.testing.assert_allclose(forward(LocalOnly()), evaluated(Net())(X), atol=1e-6)

    def test_a_graph_and_its_state_in_evaluation_mode(self) -> None:
        np.testing.assert_allclose(forward(split(evaluated(Net()))), evaluated(Net())(X), atol=1e-6)


class Noisy(nnx.Module):
    """Counts its random numbers in evaluation mode, too."""

    def __init__(self) -> None:
        self.rngs, self.linear = nnx.Rngs(0), nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return self.linear(x) + jax.random.normal(self.rngs.noise(), (2,))


def test_a_module_that_draws_random_numbers_is_left_as_it_was() -> None:
    noisy = Noisy()
    before = jax.tree.leaves(nnx.state(noisy, nnx.RngCount))
    for model in (noisy, jax.jit(noisy)):
        np.testing.assert_array_equal(forward(model), forward(model))
    with pytest.raises(RunError, match=r"TraceContextError.*may not change it.*Give the module itself"):
        forward(lambda x: noisy(x))
    assert before == jax.tree.leaves(nnx.state(noisy, nnx.RngCount)), "the caller's counters stay"
