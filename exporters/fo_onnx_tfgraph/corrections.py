"""Operators of TensorFlow that tf2onnx 1.17 converts to something else, without a word. Each is a `fo_onnx_tfgraph.nodes.Build`.

- ``tf.where`` becomes ``c * x + (1 - c) * y``, "due to bad ORT implementation" of Where, but for some forms of conditions and constants
  (``tf2onnx/onnx_opset/controlflow.py``, class Select). What is not chosen must not be infinite or NaN then, which it often is:
  ``where(x > 0, log(x), 0)`` and masks of -∞ give NaN.
- ``tf.less`` and ``tf.greater`` of integers compare them as float32 (``tf2onnx/onnx_opset/math.py``): 2²⁴ is not less than 2²⁴ + 1.
- ``tf.one_hot`` of a negative number is all off; ONNX's OneHot counts it from the end.
- ``tf.pad`` with a value other than 0 gets a float32 constant, whatever is padded. (This one is refused by whoever loads the model.)
- ``tf.math.log`` of float64 is taken in float32, and of float16 not at all (``tf2onnx/onnx_opset/math.py``, class DirectOp).
- Integers divided by ``//`` are rounded to 0, and ``%`` takes the dividend's sign, where TensorFlow rounds down.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .nodes import Nodes

_CALCULATED_AS: dict[Any, Any] = {
    np.dtype(np.bool_): np.uint8, np.dtype(np.int8): np.int32, np.dtype(np.int16): np.int32,
    np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64,
}  # fmt: skip
"""What stands for dtypes that ONNX Runtime's operators here do not take; they take float32, float64, int32, int64 and uint8."""


def select(nodes: Nodes) -> str:
    """Where; the older operator's condition of one axis is for the first of several."""
    condition, x, y = nodes.inputs
    if nodes.operator == "Select":
        ranks = len(nodes.shape(condition)), len(nodes.shape(x))
        if ranks[0] == 1 < ranks[1]:
            condition = nodes.make("Reshape", condition, nodes.const([-1] + [1] * (ranks[1] - 1), np.int64))
    dtype = nodes.dtype(x)
    found = nodes.make("Where", condition, _calculable(nodes, x), _calculable(nodes, y))
    return nodes.cast(found, dtype) if dtype in _CALCULATED_AS else found


def compare(nodes: Nodes) -> str:
    """Less and Greater; integers as int64.

    In the conditions of loops tf2onnx itself makes int64 of some int32 and leaves others, so both are cast.
    """
    x, y = nodes.inputs
    if not np.issubdtype(nodes.dtype(x), np.floating):
        x, y = nodes.cast(x, np.int64), nodes.cast(y, np.int64)
    return nodes.make(nodes.operator, x, y)


def floor_mod(nodes: Nodes) -> str:
    """The remainder with the divisor's sign, which ONNX's Mod gives for integers only."""
    x, y = nodes.inputs
    if np.issubdtype(nodes.dtype(x), np.integer):
        return nodes.make("Mod", x, y)
    return nodes.make("Sub", x, nodes.make("Mul", nodes.make("Floor", nodes.make("Div", x, y)), y))


def floor_div(nodes: Nodes) -> str:
    """The quotient rounded down; for integers what is left without the remainder is divided, exactly."""
    x, y = nodes.inputs
    if np.issubdtype(nodes.dtype(x), np.integer):
        return nodes.make("Div", nodes.make("Sub", x, nodes.make("Mod", x, y)), y)
    return nodes.make("Floor", nodes.make("Div", x, y))


def one_hot(nodes: Nodes) -> str:
    """A comparison with the numbers of the classes, as JAX does it."""
    indices, depth, on, off = nodes.inputs
    axis = nodes.attribute("axis", -1)
    rank = len(nodes.shape(indices)) + 1
    axis = axis % rank
    classes = nodes.make("Range", nodes.const(0, np.int64), nodes.cast(depth, np.int64), nodes.const(1, np.int64))
    classes = nodes.make("Reshape", classes, nodes.const([-1 if i == axis else 1 for i in range(rank)], np.int64))
    numbers = nodes.make("Unsqueeze", nodes.cast(indices, np.int64), nodes.const([axis], np.int64))
    chosen = nodes.make("Equal", numbers, classes)
    dtype = nodes.dtype(on)
    found = nodes.make("Where", chosen, _calculable(nodes, on), _calculable(nodes, off))
    return nodes.cast(found, dtype) if dtype in _CALCULATED_AS else found


def pad(nodes: Nodes) -> str:
    """Pad, whose amounts are all that is in front and then all that is behind."""
    x, paddings, value = nodes.inputs
    in_onnx_order = nodes.make("Transpose", nodes.cast(paddings, np.int64), perm=[1, 0])
    amounts = nodes.make("Reshape", in_onnx_order, nodes.const([-1], np.int64))
    return nodes.make("Pad", x, amounts, value)


def _calculable(nodes: Nodes, x: str) -> str:
    between = _CALCULATED_AS.get(nodes.dtype(x))
    return x if between is None else nodes.cast(x, between)
