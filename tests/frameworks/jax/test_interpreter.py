from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
from fo_onnx_jax.jaxpr.interpreter import bind, evaluate, is_concrete, rewrite
from jax import export, lax

X = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
W = np.arange(9, dtype=np.float32).reshape(3, 3)


def doubled(equation, values):
    outputs = bind(equation, values)
    return [2 * y for y in outputs] if equation.primitive.name == "tanh" else outputs


def test_without_a_rule_of_its_own_a_function_is_itself():
    def function(tree, *, scale):
        y = jax.nn.gelu(tree["x"] @ W) * scale
        y = lax.fori_loop(0, 3, lambda i, a: a * 0.5 + i, y)
        y = lax.cond(y.sum() > 0, jnp.sin, jnp.cos, y)
        return {"y": y, "none": None, "size": y.shape[0]}

    outputs = rewrite(function, bind)({"x": X}, scale=2.0)
    expected = function({"x": X}, scale=2.0)
    assert jax.tree.structure(outputs) == jax.tree.structure(expected)
    np.testing.assert_allclose(outputs["y"], expected["y"], rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: f,
        jax.jit,
        jax.vmap,
        jax.checkpoint,
        lambda f: jax.jit(jax.checkpoint(jax.jit(f))),
        lambda f: lambda x: jax.named_call(f, name="inner")(x),
    ],
    ids=["plain", "jit", "vmap", "checkpoint", "nested", "named"],
)
def test_rules_reach_into_calls(call):
    outputs = rewrite(call(jnp.tanh), doubled)(X)
    np.testing.assert_allclose(outputs, 2 * np.tanh(X), rtol=1e-6)


def test_rules_reach_into_functions_with_their_own_derivatives():
    @jax.custom_jvp
    def f(x):
        return jnp.tanh(x)

    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))

    @jax.custom_vjp
    def g(x):
        return jnp.tanh(f(x))

    g.defvjp(lambda x: (g(x), None), lambda _, ct: (ct,))
    outputs = rewrite(g, doubled)(X)
    np.testing.assert_allclose(outputs, 2 * np.tanh(2 * np.tanh(X)), rtol=1e-6)


def test_a_rule_may_decline():
    def only_of_rows(equation, values):
        return doubled(equation, values) if equation.outvars[0].aval.shape == (3,) else bind(equation, values)

    outputs = rewrite(lambda x: (jnp.tanh(x), jnp.tanh(x[0])), only_of_rows)(X)
    np.testing.assert_allclose(outputs[0], np.tanh(X), rtol=1e-6)
    np.testing.assert_allclose(outputs[1], 2 * np.tanh(X[0]), rtol=1e-6)


def test_a_rule_may_evaluate_what_is_inside():
    def body_once(equation, values):
        if equation.primitive.name != "scan":
            return doubled(equation, values)
        carry, xs = values
        last, y = evaluate(equation.params["jaxpr"], [carry, xs[0]], doubled)
        return [last, y[None]]

    def function(x):
        return lax.scan(lambda c, v: (c + jnp.tanh(v), 2 * v), jnp.zeros(3), x)

    last, _ = rewrite(function, body_once)(X)
    np.testing.assert_allclose(last, 2 * np.tanh(X[0]), rtol=1e-6)


def test_a_rule_sees_no_calls():
    names = []

    def look(equation, values):
        names.append(equation.primitive.name)
        return bind(equation, values)

    rewrite(jax.jit(lambda x: jnp.tanh(jnp.sin(x))), look)(X)
    assert names == ["sin", "tanh"]


def test_what_depends_on_weights_alone_is_known_to_rules():
    seen = []

    def look(equation, values):
        if equation.primitive.name == "dot_general":
            seen.append([is_concrete(v) for v in values])
            np.testing.assert_allclose(values[1], np.concatenate([W.T, 2 * W]))
        return bind(equation, values)

    def function(x):
        weights = jnp.concatenate([jnp.asarray(W).T, jax.jit(lambda w: w * 2)(W)])
        return jnp.concatenate([x, x], 1) @ weights

    jax.make_jaxpr(rewrite(function, look))(X)
    assert seen == [[False, True]]


def test_large_constants_are_not_made_of_small_ones():
    def function(x):
        return x[0, 0] + jnp.zeros((1000, 1000))

    closed = jax.make_jaxpr(rewrite(function, bind))(X)
    assert sum(np.size(c) for c in closed.consts) < 1000


def test_a_symbolic_batch():
    (batch,) = export.symbolic_shape("b")

    def function(x):
        return jnp.tanh(x).reshape(-1) @ jnp.ones((x.size, 2)) / x.shape[0] + jnp.zeros((2,))

    struct = jax.ShapeDtypeStruct((batch, 3), np.float32)
    closed = jax.make_jaxpr(rewrite(function, doubled))(struct)
    assert closed.out_avals[0].shape == (2,)
    exported = export.export(jax.jit(rewrite(function, doubled)))(struct)
    expected = (2 * np.tanh(X + 1)).reshape(-1) @ np.ones((6, 2), np.float32) / 2
    np.testing.assert_allclose(exported.call(X + 1), expected, rtol=1e-5)


def test_it_can_be_transformed():
    function = rewrite(lambda x: jnp.tanh(x).sum(), doubled)
    np.testing.assert_allclose(jax.grad(function)(X), 2 / np.cosh(X) ** 2, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(function)(X), 2 * np.tanh(X).sum(1), rtol=1e-5)
