"""What a model reaches by roundabout ways: objects that wrap it, and modules in training mode."""

from __future__ import annotations

import argparse
import functools
from collections import deque, namedtuple
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.errors import DataError, ModelError, OutputError
from fo_onnx.options import ModelOptions, OutputOptions

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from fo_onnx_jax.export import JaxExporter  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import linen, nnx  # noqa: E402

EXPORTER = JaxExporter()
X = np.random.default_rng(0).standard_normal((6, 3), dtype=np.float32)
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 2), dtype=np.float32))
Pair = namedtuple("Pair", "net scale")


def forward(model: Any, x: np.ndarray = X) -> np.ndarray:
    raw = EXPORTER.native(model, {"0": x}, "cpu", ModelOptions(), OutputOptions())
    try:
        return raw.forward({"0": x})
    finally:
        raw.close()


class Net(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.norm, self.drop, self.out = (
            nnx.BatchNorm(3, rngs=rngs),
            nnx.Dropout(0.5, rngs=rngs),
            nnx.Linear(3, 2, rngs=rngs),
        )

    def __call__(self, x: Any) -> Any:
        return self.out(self.drop(self.norm(x)))


class Cell(eqx.Module):
    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self) -> None:
        self.linear, self.drop = eqx.nn.Linear(3, 2, key=jax.random.key(0)), eqx.nn.Dropout(0.5)

    def __call__(self, x: Any) -> Any:
        return self.drop(self.linear(x))


def evaluated() -> Net:
    net = Net()
    net.eval()
    return net


class Scaled:
    """Takes over the name and the attributes of what it scales, as functools advises."""

    def __init__(self, function: Any, t: float) -> None:
        functools.update_wrapper(self, function)
        self.function, self.t = function, t

    def __call__(self, x: Any) -> Any:
        return self.function(x) / self.t


class Pipe:
    def __init__(self, net: Any) -> None:
        self.net = net

    def predict(self, x: Any) -> Any:
        return self.inner(x)

    def inner(self, x: Any) -> Any:
        return self.net(x)

    def __call__(self, x: Any) -> Any:
        return self.predict(x)


class Slotted:
    __slots__ = ("__net", "scale")

    def __init__(self, net: Any, scale: float = 1.0) -> None:
        self.__net, self.scale = net, scale

    def __call__(self, x: Any) -> Any:
        return self.__net(x) * self.scale


class Ring:
    """Holds what holds it."""

    def __init__(self, net: Any) -> None:
        self.inner = SimpleNamespace(owner=self, net=net)

    def __call__(self, x: Any) -> Any:
        return self.inner.owner.inner.net(x)


class Layers(list):  # type: ignore[type-arg]
    def __call__(self, x: Any) -> Any:
        return self[0](x)


def of_module(net: Any) -> Callable[[Any], Any]:
    file = ModuleType("users_file")
    file.net = net  # type: ignore[attr-defined]
    file.inner = ModuleType("users_file.inner")  # type: ignore[attr-defined]
    file.inner.net = net
    space = {"mod": file, "__name__": "users"}
    exec("def predict(x): return mod.inner.net(x) + 0 * mod.net(x)", space)
    return space["predict"]


def by_default(net: Any) -> Callable[[Any], Any]:
    return lambda x, m=net: m(x)


def by_keyword_default(net: Any) -> Callable[[Any], Any]:
    def predict(x: Any, *, m: Any = net) -> Any:
        return m(x)

    return predict


def split(net: Any) -> Callable[[Any], Any]:
    graph, state = nnx.split(net)
    return lambda x: nnx.merge(graph, state)(x)


def held(value: Any, use: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: use(value, x)


def attributed(net: Any) -> Any:
    def predict(x: Any) -> Any:
        return predict.net(x)  # type: ignore[attr-defined]

    predict.net = net  # type: ignore[attr-defined]
    return predict


ROUNDABOUT: dict[str, Callable[[Any], Any]] = {
    "method": lambda m: Pipe(m).predict,
    "object": Pipe,
    "slots": Slotted,
    "a ring": Ring,
    "default": by_default,
    "keyword default": by_keyword_default,
    "namespace": lambda m: held(SimpleNamespace(m=m), lambda n, x: n.m(x)),
    "argparse": lambda m: held(argparse.Namespace(m=m), lambda n, x: n.m(x)),
    "namedtuple": lambda m: held(Pair(m, 1), lambda n, x: n.net(x)),
    "list subclass": lambda m: Layers([m]),
    "deque": lambda m: held(deque([m]), lambda n, x: n[0](x)),
    "module attribute": of_module,
    "function attribute": attributed,
    "update_wrapper": lambda m: Scaled(m, 1.0),
    "jitted method": lambda m: jax.jit(Pipe(m).predict),
}


class TestWrappers:
    @pytest.mark.parametrize("wrap", [lambda s: s, lambda s: jax.jit(lambda x: s(x)), lambda s: functools.partial(s)])
    def test_an_object_is_not_what_it_wraps(self, wrap: Any) -> None:
        net, cell = evaluated(), jax.vmap(eqx.nn.inference_mode(Cell()))
        np.testing.assert_allclose(forward(wrap(Scaled(net, 10.0))), net(X) / 10, atol=1e-6)
        np.testing.assert_allclose(forward(wrap(Scaled(cell, 5.0))), cell(X) / 5, atol=1e-6)
        assert EXPORTER.fingerprint(Scaled(net, 10.0)) != EXPORTER.fingerprint(Scaled(net, 5.0))

    def test_through_the_verb(self) -> None:
        net = evaluated()
        found = fo.generate(Scaled(net, 10.0), X, engine="onnx")
        np.testing.assert_allclose(found.probs, jax.nn.softmax(net(X) / 10), atol=1e-5)

    def test_nnx_vmap(self) -> None:
        net = evaluated()
        np.testing.assert_allclose(forward(nnx.vmap(lambda x: net(x[None])[0])), net(X), atol=1e-6)

    def test_the_arguments_are_those_of_the_wrapper(self) -> None:
        def inner(x: Any, train: bool) -> Any:
            return jnp.tanh(x)

        @functools.wraps(inner)
        def outer(image: Any) -> Any:
            return inner(image, train=False)

        for model in (outer, Scaled(inner, 1.0)):
            found = EXPORTER.signature(model)
            assert found is not None
            assert len(found.required) == 1
        np.testing.assert_allclose(forward(outer), np.tanh(X), atol=1e-6)


@pytest.mark.parametrize("way", ROUNDABOUT)
class TestEvaluationMode:
    def test_nnx(self, way: str) -> None:
        net = Net()
        before = jax.tree.map(lambda a: a.copy(), nnx.state(net, nnx.BatchStat))
        np.testing.assert_allclose(forward(ROUNDABOUT[way](net)), evaluated()(X), atol=1e-6)
        assert not net.drop.deterministic
        assert not net.norm.use_running_average
        assert int(net.drop.rngs.count[...]) == 0
        jax.tree.map(np.testing.assert_array_equal, before, nnx.state(net, nnx.BatchStat))

    def test_equinox(self, way: str) -> None:
        cell = Cell()
        expected = jax.vmap(eqx.nn.inference_mode(cell))(X)
        np.testing.assert_allclose(forward(ROUNDABOUT[way](jax.vmap(cell))), expected, atol=1e-6)
        assert not cell.drop.inference

    def test_its_fingerprint(self, way: str) -> None:
        one = EXPORTER.fingerprint(ROUNDABOUT[way](evaluated()))
        assert one == EXPORTER.fingerprint(ROUNDABOUT[way](evaluated()))
        net = evaluated()
        net.out.kernel[...] = net.out.kernel[...].at[0, 0].add(1e-5)
        model = ROUNDABOUT[way](net)
        changed = EXPORTER.fingerprint(model)
        assert changed != one
        forward(model)
        assert EXPORTER.fingerprint(model) == changed


def test_a_graph_and_its_state() -> None:
    np.testing.assert_allclose(forward(split(Net())), evaluated()(X), atol=1e-6)


def test_equinox_within_filter_vmap() -> None:
    cell = Cell()
    expected = jax.vmap(eqx.nn.inference_mode(cell))(X)
    np.testing.assert_allclose(forward(eqx.filter_vmap(lambda x: cell(x))), expected, atol=1e-6)


NET, CELL = Net(), Cell()


class NamesNet:
    def __call__(self, x: Any) -> Any:
        return NET(x)


class NamesCell:
    def __call__(self, x: Any) -> Any:
        return jax.vmap(CELL)(x)


class LocalOnly:
    """Calls a variable of its own that is named like the module at the top of this file."""

    def __init__(self) -> None:
        self.NET = evaluated()

    def __call__(self, x: Any) -> Any:
        CELL = self.NET
        return CELL(x)


@pytest.mark.parametrize("engine", ["onnx", "native"])
@pytest.mark.parametrize(
    ("model", "text"),
    [
        (NamesNet(), r"reaches a Net in training mode.*Call \.eval\(\) on it first"),
        (lambda x: NamesNet()(x), r"reaches a Net in training mode"),
        (NamesCell(), r"reaches a Cell in training mode.*equinox\.nn\.inference_mode\(model\) first"),
        (held({NET}, lambda nets, x: next(iter(nets))(x)), "reaches a Net in training mode"),
    ],
)
def test_what_cannot_be_copied_is_refused(model: Any, text: str, engine: str) -> None:
    before = jax.tree.map(lambda a: a.copy(), nnx.state(NET, nnx.BatchStat))
    with pytest.raises(ModelError, match=text):
        fo.generate(model, X, engine=engine)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(NET, nnx.BatchStat))


def test_names_that_are_no_globals_refuse_nothing() -> None:
    np.testing.assert_allclose(forward(LocalOnly()), evaluated()(X), atol=1e-6)


class TestParameters:
    def test_both_parts_of_an_equinox_module(self) -> None:
        cell = Cell()
        expected = jax.vmap(eqx.nn.inference_mode(cell))(X)
        arrays, static = eqx.partition(cell, eqx.is_array)
        for model in (lambda p, x: jax.vmap(eqx.combine(p, static))(x), jax.vmap(static)):
            np.testing.assert_allclose(forward(EXPORTER.bound(model, arrays)), expected, atol=1e-6)
        found = fo.generate(jax.vmap(static), X, params=arrays)
        np.testing.assert_allclose(found.probs, jax.nn.softmax(expected), atol=1e-5)

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


@pytest.mark.parametrize("engine", ["onnx", "native"])
def test_errors_carry_no_notes_of_jax(engine: str) -> None:
    with pytest.raises(OutputError) as found:
        fo.generate(jax.jit(lambda x: {"a": x @ W, "b": x @ W}), X, engine=engine)
    err: BaseException | None = found.value
    while err is not None:
        assert "removed its internal frames" not in "".join(getattr(err, "__notes__", []))
        err = err.__cause__
