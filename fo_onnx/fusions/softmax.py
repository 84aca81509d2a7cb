"""Softmax as one node; jax2tf writes it as an exponential and its sum."""

from __future__ import annotations

import numpy as np

from .graph_view import GraphView
from .reductions import before_broadcast, is_one_per_row, reduced_value


def fuse_softmax(view: GraphView) -> int:
    """Replace each softmax over the last axis by one node, and return how many there were.

    Before: exp(x - max x) / Σ exp(x - max x); the maximum may be the larger one of itself and -∞.
    After: ``Softmax``, which is NaN for a row of -∞ too.
    """
    import onnx

    for divided in view.nodes_of("Div"):
        exponential = view.producer(divided.input[0], "Exp")
        difference = None if exponential is None else view.producer(exponential.input[0], "Sub")
        if exponential is None or difference is None:
            continue
        x, largest = difference.input
        if not (is_one_per_row(view, largest, x) and is_one_per_row(view, divided.input[1], x)):
            continue
        total, maximum = before_broadcast(view, divided.input[1]), before_broadcast(view, largest)
        bounded = view.split_number(view.producer(maximum, "Max"))
        if bounded is not None and bounded[0] == -np.inf:
            maximum = bounded[1]
        if (
            reduced_value(view, total, "ReduceSum") == exponential.output[0]
            and reduced_value(view, maximum, "ReduceMax") == x
        ):
            view.replace(divided.output[0], [onnx.helper.make_node("Softmax", [x], [divided.output[0]], axis=-1)])
    return view.finish()
