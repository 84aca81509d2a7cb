"""Attention as exporters write it becomes one node that gives the same, queries that see no key among them; else it stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fused_graphs import assert_same_fused, counts_of, model_of

BATCH, LENGTH, HEADS, SIZE = 3, 5, 2, 4
WIDTH = HEADS * SIZE
RNG = np.random.default_rng(0)
X = RNG.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)
SEEN = np.ones((BATCH, LENGTH), bool)
SEEN[0, 3:] = False
SEEN[1] = False  # its queries see no key
LEAST = float(np.finfo(np.float32).min)
CAUSAL = np.where(np.tri(LENGTH, dtype=bool), 0, -np.inf).astype(np.float32)
CONSTANTS = {
    **{f"w{i}": RNG.standard_normal((WIDTH, WIDTH)).astype(np.float32) for i in "qkv"},
    "split": np.array([0, 0, HEADS, SIZE]), "whole": np.array([0, 0, WIDTH]), "axes": np.array([1, 2]), "last": np.array([-1]),
    "square": np.array([BATCH, 1, LENGTH, LENGTH]), "zero": 0.0, "infinite": -np.inf, "least": LEAST, "half": 0.5, "one": 1.0,
}  # fmt: skip
PROJECTIONS = """
    q0 = MatMul(x, wq)  q1 = Reshape(q0, split)  q = Transpose<perm=[0, 2, 1, 3]>(q1)
    k0 = MatMul(x, wk)  k1 = Reshape(k0, split)  k = Transpose<perm=[0, 2, 3, 1]>(k1)
    v0 = MatMul(x, wv)  v1 = Reshape(v0, split)  v = Transpose<perm=[0, 2, 1, 3]>(v1)
"""
SCORES = "product = MatMul(q, k)  scores = Mul(product, half)"
JOINED = "t = Transpose<perm=[0, 2, 1, 3]>(answer)  y = Reshape(t, whole)"
ROW_MASK = "keys = Unsqueeze(seen, axes)"
"""(batch, 1, 1, keys)"""
FULL_MASK = f"{ROW_MASK}  full = Expand(keys, square)"


def attention(
    *middle: str,
    projections: str = PROJECTIONS,
    joined: str = JOINED,
    opset: int = 18,
    more: str = "",
    batch: int | str = BATCH,
    **constants: object,
) -> onnx.ModelProto:
    """Return a model whose attention is `middle`, between the projections and what joins the heads."""
    rows = f"float[{batch}, {LENGTH}, {WIDTH}]"
    nodes = " ".join((projections, *middle, joined))
    return model_of(
        f"({rows} x, bool[{batch}, {LENGTH}] seen) => ({rows} y{more}) {{ {nodes} }}", opset, **CONSTANTS, **constants
    )


def weighted(scores: str) -> str:
    return f"weights = Softmax<axis=-1>({scores})  answer = MatMul(weights, v)"


def test_heads_that_are_split_by_reshapes_are_part_of_the_node():
    fused = assert_same_fused(attention(SCORES, weighted("scores")), {"Attention": 1}, x=X, seen=SEEN)
    assert [node.op_type for node in fused.graph.node] == ["MatMul", "MatMul", "MatMul", "Attention"]
    assert [o.version for o in fused.opset_import if o.domain == ""] == [23]


SCALES = {
    "none": ("product = MatMul(q, k)", "product"),
    "on the query": ("scaled = Mul(q, half)  product = MatMul(scaled, k)", "product"),
    "on query and key, as torch's own translation": (
        "a = Mul(q, half)  b = Mul(half, k)  product = MatMul(a, b)",
        "product",
    ),
    "a divisor": ("product = MatMul(q, k)  scores = Div(product, half)", "scores"),
}


@pytest.mark.parametrize(("nodes", "scores"), SCALES.values(), ids=SCALES.keys())
def test_scales(nodes, scores):
    assert_same_fused(attention(nodes, weighted(scores)), {"Attention": 1}, x=X, seen=SEEN)


def test_heads_of_one_projection():
    """As timm has it: queries, keys and values are cut out of one tensor of five axes."""
    projections = """
        p = Concat<axis=2>(x, x, x)  r = Reshape(p, five)  s = Transpose<perm=[2, 0, 3, 1, 4]>(r)
        qs, ks, vs = Split<axis=0, num_outputs=3>(s)
        q = Squeeze(qs, first)  k2 = Squeeze(ks, first)  v = Squeeze(vs, first)  k = Transpose<perm=[0, 1, 3, 2]>(k2)"""
    five, first = np.array([0, 0, 3, HEADS, SIZE]), np.array([0])
    model = attention(SCORES, weighted("scores"), projections=projections, five=five, first=first)
    fused = assert_same_fused(model, {"Attention": 1}, x=X, seen=SEEN)
    # The key is there without its transposition.
    assert sum(node.op_type == "Transpose" for node in fused.graph.node) == 2


MASKS = {
    "a causal one, constant": "masked = Add(scores, causal)",
    "a constant that hides all keys by numbers": "masked = Add(scores, none)",
    "numbers for whole rows": f"{FULL_MASK}  bias = Where(full, zero, least)  masked = Add(scores, bias)",
    "numbers for keys alone": f"{ROW_MASK}  bias = Where(keys, zero, least)  masked = Add(bias, scores)",
    "numbers by arithmetic": f"{ROW_MASK}  ones = Cast<to=1>(keys)  no = Sub(one, ones)  bias = Mul(no, least)  masked = Add(scores, bias)",
    "a choice": f"{FULL_MASK}  masked = Where(full, scores, least)",
    "a choice the other way round": f"{ROW_MASK}  hidden = Not(keys)  masked = Where(hidden, least, scores)",
}


@pytest.mark.parametrize("nodes", MASKS.values(), ids=MASKS.keys())
def test_masks(nodes):
    """With large numbers the answer to a query that sees no key is the mean of the values, and it stays that."""
    model = attention(
        SCORES, nodes, weighted("masked"), causal=CAUSAL, none=np.full((LENGTH, LENGTH), LEAST, np.float32)
    )
    assert_same_fused(model, {"Attention": 1}, x=X, seen=SEEN)


ZEROED = """weights = Softmax<axis=-1>(masked)  plain = MatMul(weights, v)
    best = ReduceMax<keepdims=1>(bias, last)  never = Equal(best, infinite)  answer = Where(never, zero, plain)"""


@pytest.mark.parametrize("mask", [FULL_MASK, ROW_MASK], ids=["of each query", "of all queries"])
def test_queries_that_are_zero_if_they_see_no_key(mask):
    chosen = "full" if mask == FULL_MASK else "keys"
    nodes = f"{mask}  bias = Where({chosen}, zero, infinite)  masked = Add(scores, bias)"
    fused = assert_same_fused(attention(SCORES, nodes, ZEROED), {"Attention": 1}, x=X, seen=SEEN)
    assert not any(node.op_type in ("ReduceMax", "Equal") for node in fused.graph.node)


GUARDED = """weights = Softmax<axis=-1>(masked)  cast = Cast<to=1>(weights)  nan = IsNaN(cast)  seen_ones = Where(nan, zero, cast)
    answer = MatMul(seen_ones, v)"""


@pytest.mark.parametrize("nodes", [
    f"{FULL_MASK}  bias = Where(full, zero, infinite)  masked = Add(scores, bias)",
    f"{ROW_MASK}  masked = Where(keys, scores, infinite)",
    f"{FULL_MASK}  bias = Where(full, zero, least)  masked = Add(scores, bias)",
], ids=["-∞", "a choice of -∞", "numbers"])  # fmt: skip
def test_a_softmax_that_is_zero_where_it_is_nan(nodes):
    """As torch's exporters write scaled_dot_product_attention."""
    assert_same_fused(attention(SCORES, nodes, GUARDED), {"Attention": 1}, x=X, seen=SEEN)


@pytest.mark.parametrize("opset", [13, 14, 17, 18, 21, 23])
def test_operator_sets(opset):
    """Sums have their axes as an attribute up to 17, a Split does not say its parts, and Squeeze has changed before 13."""
    joined = f"{JOINED.replace('y = ', 'j = ')}  "
    if opset < 18:
        joined += "m = ReduceMean<axes=[2], keepdims=1>(j)  p1, p2 = Split<axis=2>(j)"
    else:
        joined += "m = ReduceMean<keepdims=1>(j, last)  p1, p2 = Split<axis=2, num_outputs=2>(j)"
    model = attention(
        SCORES, weighted("scores"), joined=f"{joined}  p = Concat<axis=2>(p2, p1)  y = Sub(p, m)", opset=opset
    )
    fused = assert_same_fused(model, {"Attention": 1}, x=X, seen=SEEN)
    assert [o.version for o in fused.opset_import if o.domain == ""] == [23]


def test_a_mask_of_both_infinity_and_large_numbers():
    """The one gives 0 for a query without a key, the other the mean, so that the graph's own choice between them stays."""
    nodes = f"{FULL_MASK}  floor = Where(full, zero, least)  bias = Add(floor, causal)  masked = Add(scores, bias)"
    hidden = np.zeros((LENGTH, LENGTH), np.float32)
    hidden[2] = -np.inf
    model = attention(SCORES, nodes, ZEROED, causal=hidden)
    fused = assert_same_fused(model, {"Attention": 1}, x=X, seen=SEEN)
    assert any(node.op_type == "ReduceMax" for node in fused.graph.node)


def test_a_mask_that_hides_nothing_is_left_out():
    nodes = "all = Expand(true, square)  bias = Where(all, zero, infinite)  masked = Add(scores, bias)"
    true = np.ones((1, 1, LENGTH, LENGTH), bool)
    fused = assert_same_fused(attention(SCORES, nodes, ZEROED, true=true), {"Attention": 1}, x=X, seen=SEEN)
    assert [node.op_type for node in fused.graph.node] == ["MatMul", "MatMul", "MatMul", "Attention"]


PROBABLY_NAN = f"{FULL_MASK}  bias = Where(full, zero, infinite)  masked = Add(scores, bias)"
LEFT = {
    "a query without a key is NaN": attention(SCORES, PROBABLY_NAN, weighted("masked")),
    "a choice of -∞": attention(SCORES, f"{FULL_MASK}  masked = Where(full, scores, infinite)", weighted("masked")),
    "a constant mask that hides all keys": attention(
        SCORES, "masked = Add(scores, none)", weighted("masked"), none=np.full((LENGTH, LENGTH), -np.inf, np.float32)
    ),
    "a guard that is none": attention(SCORES, PROBABLY_NAN, GUARDED.replace("Where(nan, zero, cast)", "Where(nan, half, cast)")),
    "the weights are an output too": attention(
        SCORES, weighted("scores"), more=f", float[{BATCH}, {HEADS}, {LENGTH}, {LENGTH}] weights"
    ),
    "a softmax over queries": attention(SCORES, "weights = Softmax<axis=2>(scores)  answer = MatMul(weights, v)"),
    "three axes": model_of(
        f"(float[2, {LENGTH}, {SIZE}] q) => (float[2, {LENGTH}, {SIZE}] y)"
        "{ k = Transpose<perm=[0, 2, 1]>(q)  s = MatMul(q, k)  w = Softmax<axis=-1>(s)  y = MatMul(w, q) }"
    ),
    "values of one sample for all": attention(
        SCORES, weighted("scores").replace(" v)", " one_value)"), batch="b",
        one_value=np.ones((1, HEADS, LENGTH, SIZE), np.float32),
    ),
    "a softmax of an older operator set": attention(SCORES, weighted("scores"), opset=12),
    "an operator that means something else later": attention(
        SCORES, weighted("scores"), joined="n = GroupNormalization<num_groups=2>(answer, scale, shift)  t = Transpose<perm=[0, 2, 1, 3]>(n)"
        "  y = Reshape(t, whole)", scale=np.ones(2, np.float32), shift=np.zeros(2, np.float32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", LEFT.values(), ids=LEFT.keys())
def test_what_stays_as_it_is(model):
    assert counts_of(model) == {}
