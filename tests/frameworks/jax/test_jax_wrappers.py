"""Objects and functions that wrap a model: they are not what they wrap, and have arguments of their own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import DataError, ModelError, OutputError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import linen, nnx  # noqa: E402
from jax_nets import EXPORTER, WEIGHT, Cell, Net, X, evaluated, forward  # noqa: E402


class Scaled:
    """Takes over the name and the attributes of what it scales, as functools advises."""

    def __init__(self, function: Any, t: float) -> None:
        functools.update_wrapper(self, function)
        self.function, self.t = function, t

    def __call__(self, x: Any) -> Any:
        return self.function(x) / self.t


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: jax.jit(lambda x: s(x)), lambda s: functools.partial(s)])
def test_an_object_is_not_what_it_wraps(wrap: Any) -> None:
    net, cell = evaluated(Net()), jax.vmap(eqx.nn.inference_mode(Cell()))
    np.testing.assert_allclose(forward(wrap(Scaled(net, 10.0))), net(X) / 10, atol=1e-6)
    np.testing.assert_allclose(forward(wrap(Scaled(cell, 5.0))), cell(X) / 5, atol=1e-6)


def test_through_the_verb() -> None:
    net = evaluated(Net())
    result = fo.generate(Scaled(net, 10.0), X, runner="onnx")
    np.testing.assert_allclose(result.probs, jax.nn.softmax(net(X) / 10), atol=1e-5)


def test_nnx_vmap() -> None:
    net = evaluated(Net())
    np.testing.assert_allclose(forward(nnx.vmap(lambda x: net(x[None])[0])), net(X), atol=1e-6)


def test_the_arguments_are_those_of_the_wrapper() -> None:
    def inner(x: Any, train: bool) -> Any:
        return jnp.tanh(x)

    @functools.wraps(inner)
    def outer(image: Any) -> Any:
        return inner(image, train=False)

    for model in (outer, Scaled(inner, 1.0)):
        signature = EXPORTER.signature(model)
        assert signature is not None
        assert len(signature.required) == 1
    np.testing.assert_allclose(forward(outer), np.tanh(X), atol=1e-6)


class TestParameters:
    def test_both_parts_of_an_equinox_module(self) -> None:
        cell = eqx.nn.inference_mode(Cell())
        expected = jax.vmap(cell)(X)
        arrays, static = eqx.partition(cell, eqx.is_array)
        for model in (lambda p, x: jax.vmap(eqx.combine(p, static))(x), jax.vmap(static), jax.jit(jax.vmap(static))):
            np.testing.assert_allclose(forward(EXPORTER.bind_params(model, arrays)), expected, atol=1e-6)

    def test_both_parts_in_training_mode_under_vmap(self) -> None:
        expected = jax.vmap(eqx.nn.inference_mode(Cell()))(X)
        arrays, static = eqx.partition(Cell(), eqx.is_array)
        result = fo.generate(jax.vmap(static), X, params=arrays)
        np.testing.assert_allclose(result.probs, jax.nn.softmax(expected), atol=1e-5)

    def test_they_are_missing(self) -> None:
        def mlp(params: Any, x: Any) -> Any:
            return x @ jnp.asarray(params["w"])

        text = r"mlp\(params, x\) takes 2 arguments, and the data have 1 input\(s\).*with params="
        with pytest.raises((ModelError, DataError), match=text):
            fo.generate(mlp, X)

    @pytest.mark.parametrize("params", [None, {"params": {}}])
    def test_a_class(self, params: Any) -> None:
        class CNN(linen.Module):
            pass

        for model in (CNN, Net, Cell):
            with pytest.raises(ModelError, match=rf"{model.__name__} is a class.*make an instance: {model.__name__}\("):
                fo.generate(model, X, params=params)


@pytest.mark.parametrize("runner", ["onnx", "native"])
def test_errors_carry_no_notes_of_jax(runner: str) -> None:
    with pytest.raises(OutputError) as caught:
        fo.generate(jax.jit(lambda x: {"a": x @ WEIGHT, "b": x @ WEIGHT}), X, runner=runner)
    err: BaseException | None = caught.value
    while err is not None:
        assert "removed its internal frames" not in "".join(getattr(err, "__notes__", []))
        err = err.__cause__
