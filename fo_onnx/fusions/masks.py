"""What an attention adds to its scores, in the form that one node takes.

What the two forms give for a query that sees no key decides whether they are the same. ``Attention`` of operator set 23 gives 0 if all
its scores are -∞ or the least float32 (as ONNX Runtime has it). Written out, a softmax of nothing but -∞ is NaN, and one of equal
numbers gives the mean of the values. A mask is taken only if it is known which of them the graph gives:

- no query is without a key, as in a constant mask;
- the mask is made of -∞ where a query does not see a key, and the answer, or the softmax, is set to 0 for queries that see none;
- the mask holds large numbers, not -∞: raised to -1e30, which is as good beside other scores, they still give the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .graph_view import GraphView, attribute

if TYPE_CHECKING:
    import onnx

_UNSEEN = -1e30
_KEEPS_VALUES = ("Expand", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Transpose", "Slice", "Gather", "Tile")


@dataclass(frozen=True)
class Mask:
    """What is added to the scores.

    Attributes:
        name: The value; ``""`` for nothing.
        nodes: Nodes that make it, if it is new.
        like: The value of the graph that has its shape, if it is new.
        output: The value that the attention then gives, if it is a later one than the product with the values.
    """

    name: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    like: str = ""
    output: str | None = None


def read_mask(view: GraphView, masked: onnx.NodeProto, place: int, weighted: str, *, nan_is_zero: bool) -> Mask | None:
    """Return the mask of an attention; ``None`` if it is not known that one node means the same.

    Args:
        view: The graph.
        masked: The Add or Where that makes masked scores.
        place: Which input of it the scores are.
        weighted: The value that the attention gives.
        nan_is_zero: Whether the softmax of a query that sees no key is 0 for each key, if it is NaN.
    """
    if masked.op_type == "Where":
        fill = view.number(masked.input[3 - place])
        if fill is None or fill > _UNSEEN or (fill == -np.inf and not nan_is_zero):
            return None
        unseen = max(fill, _UNSEEN) if np.isfinite(fill) else fill
        return _choose(view, masked.input[0], 0.0 if place == 1 else unseen, unseen if place == 1 else 0.0)
    name = masked.input[1 - place]
    zeroed = _zeroed_answer(view, name, weighted)
    chosen = view.producer(name, "Where")
    if chosen is not None and view.number(chosen.input[1]) == 0:
        if _is_true(view, chosen.input[0]):
            return Mask(output=zeroed)
        if (zeroed is not None or nan_is_zero) and view.number(chosen.input[2]) == -np.inf:
            return Mask(name, output=zeroed)
    value = view.constant(name)
    if value is not None and value.ndim and (value.max(axis=-1) > _UNSEEN).all():
        return Mask(name)
    if zeroed is None and not _is_finite(view, name):
        return None
    import onnx

    raised, least = view.new_name("fo_onnx_mask"), view.add_number(_UNSEEN)
    return Mask(raised, [onnx.helper.make_node("Max", [name, least], [raised])], like=name)


def _choose(view: GraphView, condition: str, if_true: float, if_false: float) -> Mask:
    """Return a new mask that holds one of two numbers."""
    import onnx

    numbers = [view.add_number(number) for number in (if_true, if_false)]
    name = view.new_name("fo_onnx_mask")
    return Mask(name, [onnx.helper.make_node("Where", [condition, *numbers], [name])], like=condition)


def _zeroed_answer(view: GraphView, mask: str, weighted: str) -> str | None:
    """Return the value in which the answer to queries whose mask is -∞ everywhere is set to 0; ``None`` if there is none."""
    zeroed = view.only_reader(weighted, "Where")
    if zeroed is None or view.number(zeroed.input[1]) != 0 or zeroed.input[2] != weighted:
        return None
    equal = view.producer(zeroed.input[0], "Equal")
    if equal is None or view.number(equal.input[1]) != -np.inf:
        return None
    best = view.producer(equal.input[0], "ReduceMax")
    if best is None or best.input[0] != mask or attribute(best, "keepdims", 1) != 1 or len(best.input) < 2:
        return None
    axes = view.constant(best.input[1])
    output: str = zeroed.output[0]
    return output if axes is not None and axes.tolist() == [-1] else None


def _is_true(view: GraphView, name: str) -> bool:
    """Return whether a condition holds everywhere, whatever the input."""
    value = view.constant(_source(view, name))
    return value is not None and value.dtype == np.bool_ and bool(value.all())


def _is_finite(view: GraphView, name: str) -> bool:
    """Return whether a mask is made of numbers without an infinite one."""
    names, known = [name], set()
    while names:
        name = _source(view, names.pop())
        if name in known:
            continue
        known.add(name)
        product = view.split_number(view.producer(name, "Mul"))
        difference = view.producer(name, "Sub")
        if (chosen := view.producer(name, "Where")) is not None:
            names.extend(chosen.input[1:])
        elif product is not None and np.isfinite(product[0]):
            # (1 - mask) times a large number, of a mask that holds 0 and 1.
            names.append(product[1])
        elif difference is not None and view.number(difference.input[0]) is not None:
            names.append(difference.input[1])
        elif view.producer(name, "Cast") is None:
            value = view.constant(name)
            if value is None or not np.isfinite(value).all():
                return False
    return True


def _source(view: GraphView, name: str) -> str:
    """Return the value whose entries a value repeats, leaves out or puts in another order."""
    passed: set[str] = set()
    # A value passed twice is one of a loop, which ONNX Runtime refuses.
    while name not in passed and (node := view.producer(name, *_KEEPS_VALUES)) is not None:
        passed.add(name)
        name = node.input[0]
    return name
