"""GELU as exporters write it becomes one node."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fused_graphs import assert_same_fused, counts_of, model_of

X = np.linspace(-6, 6, 40, dtype=np.float32).reshape(4, 10)
CONSTANTS = {
    "root": math.sqrt(2), "inverse": 1 / math.sqrt(2), "half": 0.5, "one": 1.0, "three": 3.0, "small": 0.044715,
    "slope": math.sqrt(2 / math.pi), "two": 2.0,
}  # fmt: skip
ERF = "a = Div(x, root)  e = Erf(a)  s = Add(e, one)"
TANH = "i = Mul(slope, sum)  e = Tanh(i)  s = Add(one, e)  h = Mul(half, s)  y = Mul(x, h)"
FORMS = {
    "torch": f"{ERF}  h = Mul(half, s)  y = Mul(x, h)",
    "TensorFlow": "h = Mul(half, x)  a = Mul(x, inverse)  e = Erf(a)  s = Add(one, e)  y = Mul(h, s)",
    "erf last": f"{ERF}  p = Mul(x, s)  y = Mul(p, half)",
    "jax2tf, by erfc": "h = Mul(half, x)  n = Neg(x)  a = Mul(n, inverse)  e = Erf(a)  s = Sub(one, e)  y = Mul(h, s)",
    "Keras, negated after the factor": "h = Mul(half, x)  m = Mul(x, inverse)  n = Neg(m)  e = Erf(n)  s = Sub(one, e)  y = Mul(h, s)",
    "tanh, torch": f"p = Pow(x, three)  c = Mul(small, p)  sum = Add(x, c)  {TANH}",
    "tanh, flax": f"c1 = Mul(small, x)  c2 = Mul(x, c1)  c = Mul(x, c2)  sum = Add(x, c)  {TANH}",
}
OTHERS = {
    "another factor": FORMS["torch"].replace("root", "two"),
    "twice as much": FORMS["torch"].replace("half", "two"),
    "1 - erf": FORMS["torch"].replace("Add(e, one)", "Sub(one, e)"),
    "erf of something else": FORMS["torch"].replace("Div(x, root)", "Div(one, root)"),
    "a square": FORMS["tanh, torch"].replace("three", "two"),
    "not times x": FORMS["torch"].replace("Mul(x, h)", "Mul(a, h)"),
}


@pytest.mark.parametrize("nodes", FORMS.values(), ids=FORMS.keys())
def test_forms(nodes):
    model = model_of(f"(float[n, 10] x) => (float[n, 10] y) {{ {nodes} }}", **CONSTANTS)
    fused = assert_same_fused(model, {"Gelu": 1}, x=X)
    assert [node.domain for node in fused.graph.node] == ["com.microsoft"]


@pytest.mark.parametrize("nodes", OTHERS.values(), ids=OTHERS.keys())
def test_what_is_no_gelu_stays(nodes):
    assert counts_of(model_of(f"(float[n, 10] x) => (float[n, 10] y) {{ {nodes} }}", **CONSTANTS)) == {}


def test_an_operator_of_another_domain_stays():
    model = model_of(f"(float[n, 10] x) => (float[n, 10] y) {{ {FORMS['torch']} }}", **CONSTANTS)
    next(node for node in model.graph.node if node.op_type == "Erf").domain = "com.example"
    assert counts_of(model) == {}


def test_a_number_that_adds_an_axis_stays():
    constants = CONSTANTS | {"half": np.full((1, 1, 1), 0.5, np.float32)}
    assert counts_of(model_of(f"(float[n, 10] x) => (float[1, n, 10] y) {{ {FORMS['torch']} }}", **constants)) == {}


def test_a_part_that_is_used_elsewhere_stays():
    text = f"(float[n, 10] x) => (float[n, 10] y, float[n, 10] s) {{ {FORMS['torch']} }}"
    assert counts_of(model_of(text, **CONSTANTS)) == {}


def test_double_precision_stays():
    """ONNX Runtime has no kernel for it."""
    doubles = {name: np.asarray(value, np.float64) for name, value in CONSTANTS.items()}
    assert counts_of(model_of(f"(double[n, 10] x) => (double[n, 10] y) {{ {FORMS['torch']} }}", **doubles)) == {}


def test_a_value_that_a_branch_reads_stays():
    text = f"""(float[n, 10] x, bool c) => (float[n, 10] z) {{
        {FORMS["torch"]}
        t = If(c) <then_branch = g1 () => (float[n, 10] o1) {{ o1 = Add(s, x) }},
                   else_branch = g2 () => (float[n, 10] o2) {{ o2 = Identity(x) }}>
        z = Add(y, t) }}"""
    assert counts_of(model_of(text, **CONSTANTS)) == {}
