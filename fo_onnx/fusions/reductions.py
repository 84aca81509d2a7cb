"""Means, sums and maxima along the last axis, in the ways that exporters write them and bring them back to the shape of their input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .graph_view import GraphView, attribute

if TYPE_CHECKING:
    import onnx


def before_broadcast(view: GraphView, name: str) -> str:
    """Return a value with one entry in the last axis as it was before that axis was put in; another value as it is.

    Reshapes that only add the axis are passed over, and expansions to a shape that is there already.
    """
    shape = view.shape(name)
    if not shape or shape[-1] != 1 or None in shape:
        return name
    expanded = view.producer(name, "Expand")
    if expanded is not None and view.shape(expanded.input[0]) == shape:
        name = expanded.input[0]
    reshaped = view.producer(name, "Reshape", "Unsqueeze")
    if reshaped is not None and view.shape(reshaped.input[0]) == shape[:-1]:
        name = reshaped.input[0]
    return name


def is_one_per_row(view: GraphView, name: str, x: str) -> bool:
    """Return whether a value has as many axes as `x`, and one entry in the last: it is the same for all that `x` has there."""
    shape, shape_of_x = view.shape(name), view.shape(x)
    return bool(shape) and bool(shape_of_x) and len(shape or ()) == len(shape_of_x or ()) and (shape or ())[-1] == 1


def reduced_value(view: GraphView, name: str, operator: str) -> str | None:
    """Return what a value is the reduction of along the last axis, by ``ReduceMax`` for example; ``None`` if it is none."""
    node = view.producer(name, operator)
    return node.input[0] if node is not None and _is_over_last(view, node) else None


def mean_of(view: GraphView, name: str) -> str | None:
    """Return what a value is the mean of along the last axis; ``None`` if it is no mean."""
    if (value := reduced_value(view, name, "ReduceMean")) is not None:
        return value
    product = view.split_number(view.producer(name, "Mul"))
    value = None if product is None else reduced_value(view, product[1], "ReduceSum")
    shape = None if value is None else view.shape(value)
    if product is None or not shape or not isinstance(shape[-1], int):
        return None
    return value if view.is_value(product[0], 1 / shape[-1]) else None


def _is_over_last(view: GraphView, node: onnx.NodeProto) -> bool:
    axes, shape = view.constant(node.input[1]) if len(node.input) > 1 else None, view.shape(node.input[0])
    if axes is None or axes.size != 1 or shape is None:
        return False
    return int(axes.reshape(-1)[0]) in (-1, len(shape) - 1) and attribute(node, "keepdims", 1) in (0, 1)
