"""Layer normalisation and softmax, as Keras and JAX write them, become one node each."""

from __future__ import annotations

import numpy as np
import pytest
from fused_graphs import assert_same_fused, counts_of, model_of

WIDTH = 16
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((3, 5, WIDTH)) * 3 + 1).astype(np.float32)
CONSTANTS = {
    "scale": RNG.uniform(0.5, 2, (1, 1, WIDTH)).astype(np.float32), "shift": RNG.standard_normal((1, 1, WIDTH)).astype(np.float32),
    "axes": np.array([-1]), "axis": np.array([2]), "other": np.array([1]), "width": 1 / WIDTH, "zero": 0.0, "epsilon": 1e-3,
    "infinite": -np.inf, "column": np.array([3, 5, 1]),
}  # fmt: skip
KERAS = """
    m = ReduceMean<keepdims=1>(x, axes)  d = Sub(x, m)  dd = Mul(d, d)  v = ReduceMean<keepdims=1>(dd, axes)
    e = Add(v, epsilon)  r = Sqrt(e)  i = Reciprocal(r)  f = Mul(i, scale)
    p = Mul(x, f)  n = Neg(m)  q = Mul(n, f)  b = Add(q, shift)  y = Add(p, b)"""
JAX = """
    xx = Mul(x, x)  s2 = ReduceSum<keepdims=0>(xx, axis)  s1 = ReduceSum<keepdims=0>(x, axis)
    m2 = Mul(s2, width)  m1 = Mul(s1, width)  mm = Mul(m1, m1)  v0 = Sub(m2, mm)  v1 = Max(zero, v0)
    m3 = Reshape(m1, column)  m = Expand(m3, column)  d = Sub(x, m)
    v2 = Reshape(v1, column)  v = Expand(v2, column)  e = Add(v, epsilon)  r = Sqrt(e)  i = Reciprocal(r)
    f = Mul(i, scale)  p = Mul(d, f)  y = Add(p, shift)"""
SOFTMAX = """
    a = ReduceMax<keepdims=0>(x, axis)  m1 = Max(infinite, a)  m2 = Reshape(m1, column)  m = Expand(m2, column)
    d = Sub(x, m)  e = Exp(d)  s = ReduceSum<keepdims=0>(e, axis)  s2 = Reshape(s, column)  y = Div(e, s2)"""


def model(nodes: str, **constants: object):
    return model_of(f"(float[3, 5, {WIDTH}] x) => (float[3, 5, {WIDTH}] y) {{ {nodes} }}", **{**CONSTANTS, **constants})


@pytest.mark.parametrize("nodes", [KERAS, JAX], ids=["Keras", "JAX"])
def test_layer_normalisation(nodes):
    fused = assert_same_fused(model(nodes), {"LayerNormalization": 1}, x=X)
    assert [node.op_type for node in fused.graph.node] == ["Squeeze", "Squeeze", "LayerNormalization"]


def test_softmax():
    x = X.copy()
    x[0, 0, :3] = -np.inf
    x[1, 2] = -np.inf  # NaN in both
    fused = assert_same_fused(model(SOFTMAX), {"Softmax": 1}, x=x)
    assert [node.op_type for node in fused.graph.node] == ["Softmax"]


OTHERS = {
    "over another axis": model(KERAS.replace("axes", "other"), scale=np.ones((1, 1, 1), np.float32)),
    "of the mean of something else": model(KERAS.replace("n = Neg(m)", "n = Neg(v)")),
    "a sum that is no mean": model(JAX, width=0.5),
    "a weight for each row": model(KERAS, scale=np.ones((1, 5, 1), np.float32)),
    "a variance of something else": model(JAX.replace("mm = Mul(m1, m1)", "mm = Mul(m1, m2)")),
    "a softmax over another axis": model_of(
        f"(float[3, {WIDTH}, {WIDTH}] x) => (float[3, {WIDTH}, {WIDTH}] y) {{ {SOFTMAX} }}",
        **CONSTANTS | {"axis": np.array([1]), "column": np.array([3, 1, WIDTH])},
    ),
    "a softmax less the largest of something else": model(SOFTMAX.replace("e = Exp(d)", "d2 = Sub(d, x)  e = Exp(d2)")),
    "a softmax less the largest squares": model(
        SOFTMAX.replace("a = ReduceMax<keepdims=0>(x", "q = Mul(x, x)  a = ReduceMax<keepdims=0>(q")
    ),
    "sums of columns for rows": model_of(
        f"(float[3, {WIDTH}, {WIDTH}] x) => (float[3, {WIDTH}, {WIDTH}] y) {{ {SOFTMAX} }}",
        **CONSTANTS | {"axis": np.array([1]), "column": np.array([3, WIDTH, 1])},
    ),
    "sums of rows for columns": model_of(
        "(float[4, 4] x) => (float[4, 4] y)"
        "{ m = ReduceMax<keepdims=0>(x, axis)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum<keepdims=0>(e, axis)  y = Div(e, s) }",
        axis=np.array([1]),
    ),
    "a sum that is put in another place": model_of(
        f"(float[3, {WIDTH}, {WIDTH}] x) => (float[3, {WIDTH}, {WIDTH}] y) {{ {SOFTMAX} }}",
        **CONSTANTS | {"column": np.array([3, 1, WIDTH])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("graph", OTHERS.values(), ids=OTHERS.keys())
def test_what_stays_as_it_is(graph):
    assert counts_of(graph) == {}
