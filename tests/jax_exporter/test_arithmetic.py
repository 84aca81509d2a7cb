from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
from fo_onnx_jax.arithmetic import OTHERS, POLYNOMIALS, computed
from jax import lax
from jax._src import core

A = np.random.default_rng(0).standard_normal((2, 3, 4), dtype=np.float32)
B = np.random.default_rng(1).standard_normal((2, 3, 4), dtype=np.float32)
M = np.random.default_rng(2).standard_normal((4, 5), dtype=np.float32)


def gather_one(a):
    numbers = lax.GatherDimensionNumbers(offset_dims=(0, 1), collapsed_slice_dims=(1,), start_index_map=(1,))
    return lax.gather(a, jnp.array([2]), numbers, (2, 1, 4), mode="clip")


CASES = {
    "add": [lambda a, b: a + b],
    "broadcast_in_dim": [
        lambda a: lax.broadcast_in_dim(a, (5, 2, 3, 4), (1, 2, 3)),
        lambda a: lax.broadcast_in_dim(a[:1, :, 0], (2, 3, 6), (0, 1)),
    ],
    "concatenate": [lambda a, b: lax.concatenate([a, b, a], 1)],
    "convert_element_type": [
        lambda a: lax.convert_element_type_p.bind(a, new_dtype=np.dtype(np.float32), weak_type=False, sharding=None)
    ],
    "copy": [lambda a: lax.copy_p.bind(a)],
    "div": [lambda a: a / 4.0],
    "dot_general": [
        lambda a: lax.dot_general(a, M, (((2,), (0,)), ((), ()))),
        lambda a: lax.dot_general(M, a, (((0,), (2,)), ((), ()))),
        lambda a, b: lax.dot_general(a, b, (((2,), (2,)), ((0,), (0,)))),
        lambda a, b: lax.dot_general(a, jnp.transpose(b, (1, 2, 0)), (((2,), (1,)), ((0, 1), (2, 0)))),
        lambda a, b: jnp.einsum("bij,kij->ibk", a, b),
    ],
    "dynamic_slice": [lambda a: lax.dynamic_slice(a, (0, 1, 9), (2, 2, 2))],
    "exp": [jnp.exp],
    "expand_dims": [lambda a: lax.expand_dims(a, (0, 2))],
    "gather": [gather_one],
    "integer_pow": [lambda a: a**3],
    "logistic": [jax.nn.sigmoid],
    "max": [lambda a, b: jnp.maximum(a, b)],
    "mul": [lambda a, b: a * b],
    "neg": [lambda a: -a],
    "reduce_sum": [lambda a: a.sum((0, 2))],
    "reshape": [lambda a: a.reshape(6, 4)],
    "rev": [lambda a: lax.rev(a, (0, 2))],
    "slice": [lambda a: lax.slice(a, (0, 1, 0), (2, 3, 4), (1, 1, 3)), lambda a: a[:, :2]],
    "split": [lambda a: lax.split(a, (1, 2), 1)],
    "square": [jnp.square],
    "squeeze": [lambda a: lax.squeeze(a[:1], (0,))],
    "sub": [lambda a, b: a - b],
    "tanh": [jnp.tanh],
    "transpose": [lambda a: jnp.transpose(a, (2, 0, 1))],
}
SAME_AS_OTHERS = {"add_any", "copy_p"}
"""Which only transformations make, and which are called so only in some versions."""


def in_numpy(closed, *values):
    known = dict(zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
    known.update(zip(closed.jaxpr.invars, (v.astype(np.float64) for v in values), strict=True))
    names = set()
    for equation in closed.jaxpr.eqns:
        name, inputs = equation.primitive.name, equation.invars
        if name in ("jit", "pjit"):
            outputs, inner = in_numpy(equation.params["jaxpr"], *(known[v] for v in inputs))
            names |= inner
        else:
            values = [v.val if isinstance(v, core.Literal) else known[v] for v in inputs]
            outputs = computed(name, equation.params, values)
            names.add(name)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [known[v] for v in closed.jaxpr.outvars], names


@pytest.mark.parametrize(("name", "function"), [(n, f) for n, functions in CASES.items() for f in functions])
def test_a_primitive_is_what_it_is_in_jax(name, function):
    values = [A, B][: function.__code__.co_argcount] if hasattr(function, "__code__") else [A]
    closed = jax.make_jaxpr(function)(*values)
    found, names = in_numpy(closed, *values)
    assert name in names | {"copy" if "copy_p" in names else name}
    expected = jax.tree.leaves(function(*values))
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_primitive_has_its_case():
    assert {*POLYNOMIALS, *OTHERS} == {*CASES, *SAME_AS_OTHERS}


def test_in_double_precision():
    (found,) = computed("dot_general", {"dimension_numbers": (((1,), (0,)), ((), ()))}, [M.astype(float), np.eye(5)])
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, M)


def test_a_sigmoid_of_large_numbers():
    (found,) = computed("logistic", {}, [np.array([-1e6, 0, 1e6])])
    np.testing.assert_array_equal(found, [0, 0.5, 1])
