from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
from fo_onnx_jax.jaxpr.half_precision import in_float32, uses_half
from jax import lax

from fo_onnx.errors import ExportError

BF16 = jnp.bfloat16
X = np.random.default_rng(0).standard_normal((4, 5, 3), dtype=np.float32)
W = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3)), BF16)


def lifted(function):
    """Like a function of bfloat16 weights, written in float32."""
    return function(W.astype(jnp.float32), jnp.float32)


def plain(w, dtype):
    return lambda x: jax.nn.softmax(jax.nn.silu(x.astype(dtype) @ w) + jnp.ones((3,), dtype))


def scan(w, dtype):
    def function(x):
        def step(carry, x_t):
            h, count = carry
            h = jnp.tanh(h @ w + x_t)
            return (h, count + 1), h

        zero = jnp.zeros((x.shape[0], 3), dtype)
        return lax.scan(step, (zero, 0), jnp.swapaxes(x, 0, 1).astype(dtype))

    return function


def loops_and_branches(w, dtype):
    def function(x):
        h = x.astype(dtype)
        h = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.tanh(s[1] @ w)), (0, h))[1]
        return lax.cond(h.sum() > 0, lambda a: a * 2, lambda a: a - jnp.asarray(1, dtype), h)

    return function


def calls(w, dtype):
    @jax.jit
    def inner(x):
        return jax.checkpoint(jnp.sin)(x @ w)

    return lambda x: jax.vmap(inner)(x.astype(dtype))


def accumulating(w, dtype):
    def function(x):
        product = jnp.matmul(x.astype(dtype), w, preferred_element_type=jnp.float32)
        return {"sum": product.sum((1, 2)).astype(dtype), "rank": jnp.argmax(product, -1)}

    return function


NETS = [plain, scan, loops_and_branches, calls, accumulating]


@pytest.mark.parametrize("net", NETS)
def test_it_computes_as_if_written_in_float32(net):
    lifted_output = in_float32(net(W, BF16))(X)
    expected = lifted(net)(X)
    assert jax.tree.structure(lifted_output) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(lifted_output), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", NETS)
def test_nothing_is_left_in_bfloat16(net):
    assert uses_half(net(W, BF16), X)
    assert not uses_half(in_float32(net(W, BF16)), X)
    assert not uses_half(lifted(net), X)


def test_rounding_is_finer_than_the_originals():
    original = np.asarray(plain(W, BF16)(X), np.float32)
    lifted_output = np.asarray(in_float32(plain(W, BF16))(X))
    assert 1e-4 < np.abs(lifted_output - original).max() < 3e-2


def test_float16_too():
    net = plain(W.astype(jnp.float16), jnp.float16)
    assert uses_half(net, X)
    assert not uses_half(in_float32(net), X)
    np.testing.assert_allclose(in_float32(net)(X), lifted(plain)(X), rtol=2e-2)  # the weights were rounded otherwise


def test_arguments_in_bfloat16():
    for function in (lambda x: x + x, lambda x: x, lambda x: W):
        assert in_float32(function)(jnp.asarray(X, BF16)).dtype == np.float32
    assert uses_half(lambda x: x + x, jax.ShapeDtypeStruct((2, 3), BF16))


def test_algorithms_for_bfloat16_products():
    def function(x):
        return lax.dot(x[0].astype(BF16), W, precision=lax.DotAlgorithmPreset.BF16_BF16_F32)

    closed = jax.make_jaxpr(in_float32(function))(X)
    assert [e.params["precision"] for e in closed.jaxpr.eqns if e.primitive.name == "dot_general"] == [None]


def test_bfloat16_inside_of_a_loop_only_is_found():
    def function(x):
        def half(i, a):
            return (a.astype(BF16) * 2).astype(jnp.float32)

        return lax.fori_loop(0, 3, half, x)

    assert uses_half(function, X)
    assert not uses_half(in_float32(function), X)


def test_bits_of_bfloat16_are_refused():
    def function(x):
        return lax.bitcast_convert_type(x.astype(BF16), jnp.uint16)

    with pytest.raises(
        ExportError, match="bitcast_convert_type takes numbers of half precision as bits, which cannot be done in"
    ):
        in_float32(function)(X)


def test_python_functions_of_bfloat16_are_refused():
    def function(x):
        y = x.astype(BF16)
        return jax.pure_callback(lambda a: a, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    with pytest.raises(
        ExportError, match="pure_callback takes numbers of half precision to a Python function.*or run it natively"
    ):
        in_float32(function)(X)
