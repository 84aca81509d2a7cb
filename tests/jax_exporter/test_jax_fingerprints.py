"""What tells one JAX model from another, the same in every process."""

from __future__ import annotations

import argparse
import ast
import functools
import math
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from flax.core import FrozenDict  # noqa: E402
from fo_onnx_jax.models import Bound  # noqa: E402
from jax.extend.core import jaxpr_as_fun  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402
from jax_libraries import haiku as hk  # noqa: E402
from jax_libraries import linen, nnx  # noqa: E402
from jax_nets import (  # noqa: E402
    EXPORTER,
    KEY,
    MODELS,
    NUMPY_WEIGHT,
    WEIGHT,
    Cell,
    Dense,
    Holder,
    NumpyHolder,
    X,
    apply_dict,
    call,
    closes_over,
    transformed,
    with_state,
)


class TestModels:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (lambda x: jnp.tanh(x), lambda x: jnp.sinh(x)),
            (lambda x: jnp.tanh(x) * 2, lambda x: jnp.tanh(x) * 3),
            (closes_over(WEIGHT, jnp.dot), closes_over(WEIGHT.at[0, 0].add(1e-6), jnp.dot)),
            (closes_over({"a": [NUMPY_WEIGHT]}, call), closes_over({"b": [NUMPY_WEIGHT]}, call)),
            (Holder(WEIGHT), Holder(WEIGHT.T)),
            (Holder(WEIGHT), NumpyHolder(WEIGHT)),
            (Cell(), Cell(jax.nn.relu)),
            (jax.vmap(Cell()), jax.vmap(Cell(jax.nn.relu))),
            (eqx.filter_jit(Cell()), eqx.filter_jit(Cell(jax.nn.relu))),
            (closes_over(jax.random.key(0), call), closes_over(jax.random.key(1), call)),
            (nnx.Linear(3, 2, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(1))),
            (nnx.Dropout(0.5), nnx.Dropout(0.4)),
            (Bound(Dense(), {"w": WEIGHT}, call, call), Bound(Dense(), {"w": WEIGHT + 1}, call, call)),
            (linen.Dense(2), linen.Dense(3)),
            (
                functools.partial(apply_dict, {"w": WEIGHT}),
                functools.partial(apply_dict, {"w": WEIGHT.astype("bfloat16")}),
            ),
            (hk.transform(transformed), hk.transform(with_state)),
        ],
    )
    def test_what_differs(self, one: Any, other: Any) -> None:
        assert EXPORTER.fingerprint(one) != EXPORTER.fingerprint(other)

    def test_a_method_of_a_class(self) -> None:
        def of(text: str) -> Any:
            space = {"linen": linen, "jnp": jnp, "__name__": "user"}
            code = (
                "class M(linen.Module):\n    @linen.compact\n    def __call__(self, x):\n        return self.end(linen.Dense(2)(x))\n"
                f"    def end(self, x):\n        return {text}\n"
            )
            exec(code, space)
            return space["M"]()

        assert EXPORTER.fingerprint(of("x * 2")) == EXPORTER.fingerprint(of("x * 2"))
        assert EXPORTER.fingerprint(of("x * 2")) != EXPORTER.fingerprint(of("x * 3"))

    def test_a_function_that_a_function_calls(self) -> None:
        def of(text: str) -> Any:
            space = {"jnp": jnp, "__name__": "user"}
            exec(
                f"def inner(x):\n    return {text}\ndef outer(x):\n    return [inner(x) for _ in range(1)][0]\n", space
            )
            return space["outer"]

        assert EXPORTER.fingerprint(of("jnp.tanh(x)")) == EXPORTER.fingerprint(of("jnp.tanh(x)"))
        assert EXPORTER.fingerprint(of("jnp.tanh(x)")) != EXPORTER.fingerprint(of("jnp.sinh(x)"))

    def test_what_holds_itself(self) -> None:
        held: dict[str, Any] = {"w": WEIGHT}
        held["self"] = held
        assert EXPORTER.fingerprint(closes_over(held, call)) == EXPORTER.fingerprint(closes_over(held, call))

    def test_it_is_the_same_in_other_processes(self) -> None:
        names = list(MODELS)
        program = (
            f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / 'support')]!r}\n"
            "import jax_nets as t\n"
            f"print([t.EXPORTER.fingerprint(t.MODELS[n]()) for n in {names!r}])\n"
        )
        run = subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=120, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        )  # fmt: skip
        assert run.stdout.strip() == str([EXPORTER.fingerprint(MODELS[n]()) for n in names])


class Slotted:
    __slots__ = ("__scale",)

    def __init__(self, scale: float) -> None:
        self.__scale = scale


class Wrapping:
    def __init__(self, value: Any) -> None:
        functools.update_wrapper(self, jnp.tanh)
        self.value = value


FIELDS: dict[str, Callable[[float], Any]] = {
    "SimpleNamespace": lambda v: SimpleNamespace(v=v),
    "Namespace": lambda v: argparse.Namespace(v=v),
    "deque": lambda v: deque([v]),
    "poly1d": lambda v: np.poly1d([1.0, v]),
    "slots": Slotted,
    "update_wrapper": Wrapping,
    "order of a dict": lambda v: {"a": 1, "b": 2} if v == 1 else {"b": 2, "a": 1},
    "a deep list": lambda v: functools.reduce(lambda inner, _: [inner], range(2000), [v]),
}


class TestWhatIsHeld:
    @pytest.mark.parametrize("name", FIELDS)
    def test_fields(self, name: str) -> None:
        one, same, other = (
            EXPORTER.fingerprint(closes_over(FIELDS[name](v), lambda n, x: jnp.tanh(x))) for v in (1.0, 1.0, 2.0)
        )
        assert one == same
        assert one != other

    def test_sklearn(self) -> None:
        scaling = pytest.importorskip("sklearn.preprocessing")
        one, same, other = (
            EXPORTER.fingerprint(closes_over(scaling.StandardScaler().fit(x), lambda s, x: jnp.tanh(x) - s.mean_))
            for x in (X, X, X + 1)
        )
        assert one == same
        assert one != other

    def test_a_class_in_site_packages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "site-packages"
        folder.mkdir()
        (folder / "installed_net.py").write_text(
            "import jax.numpy as jnp\nclass Net:\n    def __init__(self, w): self.w = w\n"
            "    def __call__(self, x): return jnp.tanh(x) @ self.w\n"
        )
        monkeypatch.syspath_prepend(str(folder))
        import installed_net  # type: ignore[import-not-found]

        assert EXPORTER.fingerprint(installed_net.Net(WEIGHT)) == EXPORTER.fingerprint(installed_net.Net(WEIGHT))
        assert EXPORTER.fingerprint(installed_net.Net(WEIGHT)) != EXPORTER.fingerprint(installed_net.Net(WEIGHT + 1e-3))

    @pytest.mark.parametrize(
        ("top", "body"),
        [
            ("import users_package.sub", "return jnp.tanh(x) * users_package.sub.VALUE"),
            ("", "from users_package.sub import VALUE; return jnp.tanh(x) * VALUE"),
            ("", "import users_package.sub as s; return jnp.tanh(x) * s.VALUE"),
            ("", "import users_package.sub; return jnp.tanh(x) * users_package.sub.VALUE"),
        ],
    )
    def test_values_in_other_files(self, tmp_path: Path, top: str, body: str) -> None:
        folder = tmp_path / "users_package"
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        script = tmp_path / "script.py"
        script.write_text(
            f"import jax.numpy as jnp, numpy as np\nfrom fo_onnx_jax.export import JaxExporter\n{top}\n"
            f"def model(x): {body}\n"
            "one = JaxExporter().fingerprint(model)\nmodel(np.ones(3))\nassert JaxExporter().fingerprint(model) == one\n"
            "import sys; sys.modules['users_package.sub'].VALUE = 7.0\nassert JaxExporter().fingerprint(model) != one\n"
            "print(one)\n"
        )
        found = []
        for value in ("1.0", "1.0", "2.0"):
            (folder / "sub.py").write_text(f"VALUE = {value}\n")
            run = subprocess.run(
                [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )  # fmt: skip
            found.append(run.stdout.strip())
        assert found[0] == found[1] != found[2]


def test_the_switch_of_64_bits_is_part_of_the_fingerprint() -> None:
    def function(x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    before = EXPORTER.fingerprint(function)
    with jax.experimental.enable_x64():
        assert EXPORTER.fingerprint(function) != before
    assert EXPORTER.fingerprint(function) == before


@jax.tree_util.register_pytree_node_class
class Scaled:
    """A pytree node of the user's own, with an array among its children and a number beside them."""

    def __init__(self, weight: Any, scale: float = 1.0) -> None:
        self.weight, self.scale = weight, scale

    def __call__(self, x: Any) -> Any:
        return x @ self.weight * self.scale

    def tree_flatten(self) -> tuple[tuple[Any], float]:
        return (self.weight,), self.scale

    @classmethod
    def tree_unflatten(cls, scale: float, children: tuple[Any]) -> Scaled:
        return cls(*children, scale)


class Inner(nnx.Module):
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: Any) -> Any:
        return x * self.scale


class Outer(nnx.Module):
    def __init__(self, scale: float) -> None:
        self.parts = nnx.List([nnx.Linear(3, 2, rngs=nnx.Rngs(0)), Inner(scale)])

    def __call__(self, x: Any) -> Any:
        return self.parts[1](self.parts[0](x))


class Widened(linen.Module):
    scale: float
    inner: Any = None

    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(2)(x if self.inner is None else self.inner(x)) * self.scale


class Deep(eqx.Module):
    inner: Any
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, x: Any) -> Any:
        return self.inner(x) * self.scale


def closed_jaxpr(scale: float) -> Any:
    """Holds a constant, and another one within the jaxpr of what is jitted."""
    one, other = WEIGHT * 1.0, WEIGHT * scale
    inner = jax.make_jaxpr(lambda x: x @ other)(X)
    jitted = jax.jit(jaxpr_as_fun(inner))
    return jax.make_jaxpr(lambda x: jitted(x)[0] + x @ one)(X)


def callback_jaxpr(scale: float) -> Any:
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    return jax.make_jaxpr(lambda x: jax.pure_callback(lambda a: a * scale, shape, x))(X)


def of_text(text: str, kind: str = "object") -> Any:
    space = {"jax": jax, "jnp": jnp, "eqx": eqx, "nnx": nnx, "__name__": "users"}
    exec(f"class Made({kind}):\n    {text}\n", space)
    return space["Made"]()


def of_global(value: float) -> Any:
    space = {"jnp": jnp, "SCALE": value, "__name__": "users"}
    exec("def predict(x): return jnp.tanh(x) * SCALE", space)
    return space["predict"]


def haiku_model(scale: float) -> Any:
    pair = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(x) * scale))
    return EXPORTER.bound(pair, pair.init(KEY, X))


def hashed(value: float) -> Any:
    params = FrozenDict({"w": WEIGHT * value})
    hash(FrozenDict({"w": value}))
    return params


KINDS: dict[str, Callable[[float], Any]] = {
    "weight": lambda v: closes_over(WEIGHT * v, jnp.dot),
    "default argument": lambda v: lambda x, scale=v: jnp.tanh(x) * scale,
    "global": of_global,
    "partial": lambda v: functools.partial(apply_dict, {"w": WEIGHT, "scale": v}),
    "jax's partial": lambda v: jax.tree_util.Partial(apply_dict, {"w": WEIGHT * v}),
    "method's self": lambda v: Holder(WEIGHT * v).score,
    "jitted method's self": lambda v: jax.jit(Holder(WEIGHT * v).score),
    "within vmap of jit": lambda v: jax.vmap(jax.jit(closes_over(v, lambda h, x: x * h))),
    "within grad": lambda v: jax.grad(lambda x: (x * v).sum()),
    "weight of a pytree node": lambda v: Scaled(WEIGHT * v),
    "field of a pytree node": lambda v: closes_over([Scaled(WEIGHT, v)], call),
    "structure of a tree": lambda v: closes_over(jax.tree.structure([Scaled(WEIGHT, v)]), call),
    "key": lambda v: closes_over(jax.random.key(int(2 * v)), call),
    "implementation of a key": lambda v: closes_over(jax.random.key(0, impl="threefry2x32" if v == 1 else "rbg"), call),
    "nnx attribute": Outer,
    "nnx graph": lambda v: closes_over(nnx.split(Outer(v)), call),
    "linen attribute": Widened,
    "linen attribute within": lambda v: Widened(1.0, Widened(v)),
    "linen variables": lambda v: Dense().bind(jax.tree.map(lambda a: a * v, Dense().init(KEY, X))),
    "equinox static attribute": lambda v: jax.vmap(Deep(Deep(Cell(), v))),
    "equinox weight": lambda v: eqx.filter_jit(Deep(Scaled(WEIGHT * v))),
    "haiku": haiku_model,
    "frozen dict": lambda v: closes_over(hashed(v), apply_dict),
    "jaxpr constant": lambda v: closes_over(closed_jaxpr(v), call),
    "callback of a jaxpr": lambda v: closes_over(callback_jaxpr(v), call),
    "jaxpr as a function": lambda v: jaxpr_as_fun(closed_jaxpr(v)),
    "jitted call": lambda v: of_text(f"__call__ = jax.jit(lambda self, x: x * {v}, static_argnums=0)"),
    "jitted call of equinox": lambda v: of_text(f"__call__ = eqx.filter_jit(lambda self, x: x * {v})", "eqx.Module"),
    "jitted call of nnx": lambda v: of_text(f"__call__ = nnx.jit(lambda self, x: x * {v})", "nnx.Module"),
    "function of jax": lambda v: closes_over(jax.nn.relu if v == 1 else jax.nn.gelu, call),
    "ufunc of jax": lambda v: closes_over(jnp.tanh if v == 1 else jnp.sinh, call),
    "builtin function": lambda v: closes_over(math.tanh if v == 1 else math.sinh, call),
    "names of arguments": lambda v: (lambda a, b: jnp.dot(a, b)) if v == 1 else (lambda b, a: jnp.dot(b, a)),
    "set of modules": lambda v: closes_over({Outer(v), Outer(3.0), Outer(4.0)}, call),
    "a row of a module": lambda v: nnx.List([Inner(float(i)) for i in range(300)] + [Inner(v)]),
    "depth of modules": lambda v: functools.reduce(lambda inner, _: Deep(inner), range(300), Deep(Cell(), v)),
}


class TestEveryPart:
    @pytest.mark.parametrize("name", KINDS)
    def test_it_counts(self, name: str) -> None:
        one, same, other = (EXPORTER.fingerprint(KINDS[name](v)) for v in (1.0, 1.0, 1.5))
        assert one == same
        assert one != other

    def test_it_is_the_same_in_other_processes(self) -> None:
        folders = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]
        program = (
            f"import sys; sys.path[:0] = {folders!r}\nimport test_jax_fingerprints as t\n"
            "print({n: t.EXPORTER.fingerprint(make(1.0)) for n, make in t.KINDS.items()})"
        )
        run = subprocess.run(
            [sys.executable, "-c", program], check=True, timeout=120, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": "1"},
        )  # fmt: skip
        there = ast.literal_eval(run.stdout)
        assert {n: EXPORTER.fingerprint(make(1.0)) for n, make in KINDS.items()} == there

    def test_a_hash_that_was_asked_for(self) -> None:
        asked, unasked = FrozenDict({"w": 1.0}), FrozenDict({"w": 1.0})
        hash(asked)
        assert EXPORTER.fingerprint(closes_over(asked, call)) == EXPORTER.fingerprint(closes_over(unasked, call))

    def test_what_a_set_holds_may_hold_the_set(self) -> None:
        def ring(value: float) -> Any:
            one, other = Holder(WEIGHT * value), Holder(WEIGHT)
            one.others = other.others = {one, other}  # type: ignore[attr-defined]
            return one

        assert EXPORTER.fingerprint(ring(1.0)) == EXPORTER.fingerprint(ring(1.0))
        assert EXPORTER.fingerprint(ring(1.0)) != EXPORTER.fingerprint(ring(2.0))
