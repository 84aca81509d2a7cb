"""`scaled_dot_product_attention` in ONNX.

The translation of torch's exporter takes four axes only: attention within windows (Hiera, SAM) or with a single head cannot be
exported. A query that sees no key, as in a text of no token, gives the mean of all values there, or NaN; torch gives 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18

op: Any = opset18
"""Untyped: while the graph is written, its operators take and give the graph's values, not tensors."""


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Return softmax(scale · query · keyᵀ + mask) · value, and 0 for a query whose keys are all masked.

    Args:
        query: (…, L, E), with any number of leading axes.
        key: (…, S, E).
        value: (…, S, Ev).
        attn_mask: Broadcast to (…, L, S). True where a query sees a key, or numbers that are added to the scores.
        dropout_p: 0, or else the model draws random numbers.
        is_causal: Whether query i sees the keys up to i only.
        scale: 1 / sqrt(E) if it is not given.
        enable_gqa: Whether several heads of queries share one of keys and values.

    Raises:
        ValueError: `dropout_p` is not 0.
    """
    if dropout_p != 0:
        raise ValueError(
            f"scaled_dot_product_attention is called with dropout_p={dropout_p} in evaluation mode too, so that each run draws "
            "other random numbers; pass dropout_p=0.0 if the module is not in training"
        )
    axes = list(range(len(key.shape)))
    if enable_gqa:
        key, value = (_repeat_heads(t, query.shape[-3]) for t in (key, value))
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    # In this form ONNX Runtime makes one operator of product, transposition and scale.
    scores = op.MatMul(query, op.Transpose(key, perm=[*axes[:-2], axes[-1], axes[-2]]))
    scores = op.Mul(scores, _number(scale, query))
    bias = attn_mask
    if bias is not None and bias.dtype == ir.DataType.BOOL:
        bias = _bias_of(attn_mask, query)
    if is_causal:
        causal = _bias_of(_causal_mask(query, key), query)
        bias = causal if bias is None else op.Add(bias, causal)
    if bias is None:
        return op.MatMul(op.Softmax(scores, axis=-1), value)
    answer = op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), value)
    if attn_mask is None:
        # The causal mask alone leaves each query its first key.
        return answer
    best = op.ReduceMax(bias, op.Constant(value_ints=[-1]), keepdims=1)
    return op.Where(op.Equal(best, _number(-math.inf, query)), _number(0.0, query), answer)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: scaled_dot_product_attention
}
"""The operators that are translated by this package, for ``torch.onnx.export(custom_translation_table=…)``."""


def _number(value: float, like: Any) -> Any:
    return op.Constant(value=ir.tensor(value, dtype=like.dtype))


def _bias_of(mask: Any, like: Any) -> Any:
    """Return what a mask of booleans adds to the scores."""
    return op.Where(mask, _number(0.0, like), _number(-math.inf, like))


def _causal_mask(query: Any, key: Any) -> Any:
    """Return which keys (L, S) each query sees."""
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    places = [op.Range(zero, op.Squeeze(op.Shape(t, start=-2, end=-1)), one) for t in (query, key)]
    return op.GreaterOrEqual(op.Unsqueeze(places[0], op.Constant(value_ints=[1])), places[1])


def _repeat_heads(tensor: Any, heads: int) -> Any:
    """Return (…, heads, S, E) of (…, fewer heads, S, E), each of which is repeated in place."""
    before, repeats = list(tensor.shape[:-3]), heads // tensor.shape[-3]
    if repeats == 1:
        return tensor
    repeated = op.Expand(
        op.Unsqueeze(tensor, op.Constant(value_ints=[-3])),
        op.Constant(value_ints=[*(1 for _ in before), 1, repeats, 1, 1]),
    )
    # A 0 keeps the axis of that place.
    return op.Reshape(repeated, op.Constant(value_ints=[*(0 for _ in before), heads, -1, tensor.shape[-1]]))
