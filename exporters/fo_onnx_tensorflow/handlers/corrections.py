"""Operators of TensorFlow that tf2onnx 1.17 converts to something else, without a word. Each is a `Build` of `nodes`.

- ``tf.where`` becomes ``c * x + (1 - c) * y``, "due to bad ORT implementation" of Where, but for some forms of
  conditions and constants (``tf2onnx/onnx_opset/controlflow.py``, class Select). What is not chosen must not be
  infinite or NaN then, which it often is: ``where(x > 0, log(x), 0)`` and masks of -∞ give NaN.
- ``tf.less`` and ``tf.greater`` of integers compare them as float32 (``tf2onnx/onnx_opset/math.py``): 2²⁴ is not less
  than 2²⁴ + 1.
- ``tf.one_hot`` of a negative number is all off; ONNX's OneHot counts it from the end.
- ``tf.pad`` with a value other than 0 gets a float32 constant, whatever is padded. (This one is refused by whoever
  loads the model.)
- ``tf.math.log`` of float64 is taken in float32, and of float16 not at all (``tf2onnx/onnx_opset/math.py``, class
  DirectOp).
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
"""Dtypes in place of those that ONNX Runtime does not take here: float32, float64, int32, int64, uint8."""


def select(nodes: Nodes) -> str:
    """Make a Where. A condition of one axis is for the first of several, as the older operator has it."""
    condition, x, y = nodes.inputs
    if nodes.operator == "Select":
        ranks = len(nodes.shape(condition)), len(nodes.shape(x))
        if ranks[0] == 1 < ranks[1]:
            condition = nodes.make("Reshape", condition, nodes.const([-1] + [1] * (ranks[1] - 1), np.int64))
    return _where(nodes, condition, x, y)


def compare(nodes: Nodes) -> str:
    """Make a Less or Greater; integers are compared as int64.

    In the conditions of loops tf2onnx itself makes int64 of int32 here and there, so both are cast.
    """
    x, y = nodes.inputs
    if not np.issubdtype(nodes.dtype(x), np.floating):
        x, y = nodes.cast(x, np.int64), nodes.cast(y, np.int64)
    return nodes.make(nodes.operator, x, y)


def floor_mod(nodes: Nodes) -> str:
    """Make the remainder with the sign of the divisor, which ONNX's Mod gives for integers only."""
    x, y = nodes.inputs
    if np.issubdtype(nodes.dtype(x), np.integer):
        return nodes.make("Mod", x, y)
    return nodes.make("Sub", x, nodes.make("Mul", nodes.make("Floor", nodes.make("Div", x, y)), y))


def floor_div(nodes: Nodes) -> str:
    """Make the quotient rounded down; of integers the remainder is subtracted first, so that the division is exact."""
    x, y = nodes.inputs
    if np.issubdtype(nodes.dtype(x), np.integer):
        return nodes.make("Div", nodes.make("Sub", x, nodes.make("Mod", x, y)), y)
    return nodes.make("Floor", nodes.make("Div", x, y))


def one_hot(nodes: Nodes) -> str:
    """Make a comparison with the numbers of the classes, as JAX does it."""
    indices, depth, on, off = nodes.inputs
    axis = nodes.attribute("axis", -1)
    rank = len(nodes.shape(indices)) + 1
    axis = axis % rank
    classes = nodes.make("Range", nodes.const(0, np.int64), nodes.cast(depth, np.int64), nodes.const(1, np.int64))
    classes = nodes.make("Reshape", classes, nodes.const([-1 if i == axis else 1 for i in range(rank)], np.int64))
    numbers = nodes.make("Unsqueeze", nodes.cast(indices, np.int64), nodes.const([axis], np.int64))
    return _where(nodes, nodes.make("Equal", numbers, classes), on, off)


def pad(nodes: Nodes) -> str:
    """Make a Pad, whose amounts are those in front of all axes, then those behind."""
    x, paddings, value = nodes.inputs
    in_onnx_order = nodes.make("Transpose", nodes.cast(paddings, np.int64), perm=[1, 0])
    amounts = nodes.make("Reshape", in_onnx_order, nodes.const([-1], np.int64))
    return nodes.make("Pad", x, amounts, value)


def _where(nodes: Nodes, condition: str, x: str, y: str) -> str:
    dtype = nodes.dtype(x)
    between = _CALCULATED_AS.get(dtype)
    if between is None:
        return nodes.make("Where", condition, x, y)
    return nodes.cast(nodes.make("Where", condition, nodes.cast(x, between), nodes.cast(y, between)), dtype)
