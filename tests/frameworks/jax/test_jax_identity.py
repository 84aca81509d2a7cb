"""What separates one JAX model from another, the same in every process."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fresh_python import run_python

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
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
    X,
    apply_dict,
    closes_over,
    forward,
)

ROWS = {"0": X}


class Outer(nnx.Module):
    def __init__(self, scale: float) -> None:
        self.linear, self.scale = nnx.Linear(3, 2, rngs=nnx.Rngs(0)), scale

    def __call__(self, x: Any) -> Any:
        return self.linear(x) * self.scale


class Widened(linen.Module):
    scale: float

    @linen.compact
    def __call__(self, x: Any) -> Any:
        return linen.Dense(2)(x) * self.scale


class Deep(eqx.Module):
    inner: Any
    scale: float = eqx.field(static=True, default=1.0)

    def __call__(self, x: Any) -> Any:
        return self.inner(x) * self.scale


class ByBranch:
    """Looks at values, so that it cannot be traced."""

    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def __call__(self, x: Any) -> Any:
        return x @ self.weight if np.asarray(x).sum() > 0 else -x @ self.weight


def closed_jaxpr(scale: float) -> Any:
    """A jaxpr with a constant of its own, and another one within the jaxpr of what is jitted."""
    one, other = WEIGHT * 1.0, WEIGHT * scale
    inner = jax.make_jaxpr(lambda x: x @ other)(X)
    jitted = jax.jit(jaxpr_as_fun(inner))
    return jax.make_jaxpr(lambda x: jitted(x)[0] + x @ one)(X)


def with_global(value: float) -> Any:
    space = {"jnp": jnp, "SCALE": value, "__name__": "users"}
    exec("def predict(x): return jnp.tanh(x) * SCALE", space)
    return space["predict"]


def haiku_model(scale: float) -> Any:
    pair = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(x) * scale))
    return EXPORTER.bind_params(pair, pair.init(KEY, X))


def with_own_derivative(scale: float) -> Any:
    @jax.custom_jvp
    def score(x: Any) -> Any:
        return jnp.tanh(x) * scale

    score.defjvp(lambda primals, tangents: (score(*primals), score(*tangents)))
    return score


def branching(scale: float) -> Any:
    weight = WEIGHT * scale

    def predict(x: Any) -> Any:
        return x @ weight if np.asarray(x).sum() > 0 else -x @ weight

    return predict


KINDS: dict[str, Callable[[float], Any]] = {
    "weight": lambda v: closes_over(WEIGHT * v, jnp.dot),
    "weight of numpy": lambda v: lambda x: x @ (NUMPY_WEIGHT * np.float32(v)),
    "weight within jit": lambda v: jax.jit(closes_over(WEIGHT * v, jnp.dot)),
    "default argument": lambda v: lambda x, scale=v: jnp.tanh(x) * scale,
    "global": with_global,
    "partial": lambda v: functools.partial(lambda p, x: x @ p["w"] * p["scale"], {"w": WEIGHT, "scale": v}),
    "jax's partial": lambda v: jax.tree_util.Partial(apply_dict, {"w": WEIGHT * v}),
    "method's self": lambda v: Holder(WEIGHT * v).score,
    "jitted method's self": lambda v: jax.jit(Holder(WEIGHT * v).score),
    "within vmap of jit": lambda v: jax.vmap(jax.jit(closes_over(v, lambda h, x: x * h))),
    "within a derivative": with_own_derivative,
    "key": lambda v: lambda x: x + jax.random.normal(jax.random.key(int(2 * v)), (3,)),
    "held key": lambda v: closes_over(jax.random.key(int(2 * v)), lambda k, x: x + jax.random.normal(k, (3,))),
    "function of jax": lambda v: (lambda x: jax.nn.relu(x)) if v == 1 else (lambda x: jax.nn.gelu(x)),
    "scan": lambda v: lambda x: jax.lax.scan(lambda c, _: (jnp.tanh(c @ (WEIGHT @ WEIGHT.T)) * v, None), x, None, 3)[0],
    "branch": lambda v: lambda x: jax.lax.cond(x.sum() > 0, lambda a: a @ (WEIGHT * v), lambda a: a @ WEIGHT, x),
    "nnx attribute": Outer,
    "nnx in training mode": lambda v: jax.jit(nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), Outer(v))),
    "linen attribute": lambda v: EXPORTER.bind_params(Widened(v), Widened(v).init(KEY, X)),
    "linen variables": lambda v: Dense().bind(jax.tree.map(lambda a: a * v, Dense().init(KEY, X))),
    "equinox static attribute": lambda v: jax.vmap(Deep(Deep(Cell(), v))),
    "equinox weight": lambda v: eqx.filter_jit(jax.vmap(Deep(closes_over(WEIGHT.T * v, jnp.dot)))),
    "haiku": haiku_model,
    "jaxpr as a function": lambda v: jaxpr_as_fun(closed_jaxpr(v)),
    "untraceable": branching,
    "untraceable object": lambda v: ByBranch(WEIGHT * v),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_part_counts(name: str) -> None:
    one, same, other = (EXPORTER.fingerprint(KINDS[name](v), ROWS) for v in (1.0, 1.0, 1.5))
    assert one == same
    assert one != other


def test_it_is_the_same_in_other_processes() -> None:
    program = (
        f"import {__name__} as t\n"
        "print({n: t.EXPORTER.fingerprint(make(1.0), t.ROWS) for n, make in t.KINDS.items()})\n"
        "print({n: t.EXPORTER.fingerprint(make(), t.ROWS) for n, make in t.MODELS.items()})\n"
        "print({n: t.EXPORTER.fingerprint(make()) for n, make in t.MODELS.items()})"
    )
    kinds, models, unseen = map(ast.literal_eval, run_python(program, hash_seed=1).splitlines())
    assert kinds == {n: EXPORTER.fingerprint(make(1.0), ROWS) for n, make in KINDS.items()}
    assert models == {n: EXPORTER.fingerprint(make(), ROWS) for n, make in MODELS.items()}
    assert unseen == {n: EXPORTER.fingerprint(make()) for n, make in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("example", [ROWS, None], ids=["traced", "without an example"])
def test_running_a_model_does_not_change_it(name: str, example: Any) -> None:
    model = MODELS[name]()
    known = EXPORTER.fingerprint(model, example)
    forward(model)
    assert EXPORTER.fingerprint(model, example) == known
    assert EXPORTER.fingerprint(MODELS[name](), example) == known, "the same model made again"


def test_dtypes_and_names_of_inputs_count() -> None:
    params = {"w": WEIGHT}
    halves = {"w": WEIGHT.astype("bfloat16")}
    one, other = (EXPORTER.fingerprint(functools.partial(apply_dict, p), ROWS) for p in (params, halves))
    assert one != other
    assert EXPORTER.fingerprint(lambda x: jnp.tanh(x), {"0": X[:, :2]}) != EXPORTER.fingerprint(
        lambda x: jnp.tanh(x), ROWS
    )


def test_the_number_of_rows_does_not_count() -> None:
    model = closes_over(WEIGHT, jnp.dot)
    assert EXPORTER.fingerprint(model, {"0": X[:1]}) == EXPORTER.fingerprint(model, ROWS)


def test_the_switch_of_64_bits_counts() -> None:
    def function(x: jax.Array) -> jax.Array:
        return jnp.tanh(x)

    for example in (ROWS, None):
        before = EXPORTER.fingerprint(function, example)
        with jax.experimental.enable_x64():
            assert EXPORTER.fingerprint(function, example) != before
        assert EXPORTER.fingerprint(function, example) == before


def test_state_of_the_optimizer_does_not_count() -> None:
    from jax_nets import state_of

    state = state_of(Dense())
    later = state.replace(step=state.step + 7)
    assert EXPORTER.fingerprint(state, ROWS) == EXPORTER.fingerprint(later, ROWS)
