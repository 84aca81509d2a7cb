"""Gradients in TensorFlow's registry that only a graph of ours needs: there they would keep its weights for ever."""

from __future__ import annotations

from typing import Any

from tensorflow.python.framework import ops

_REGISTERED_NAME = "_gradient_op_type"
"""The attribute of a node whose gradient is registered under a name of its own (``tf.custom_gradient`` in a graph)."""


def forget_gradients(graph: Any) -> None:
    """Take the gradients of a graph's own nodes out of TensorFlow's registry; nobody differentiates it any more.

    ``tf.nn.silu``, ``tf.custom_gradient`` and the like register a function for each call in a graph. It refers to the graph, the
    graph to its weights, and the registry lets nothing go (TensorFlow 2.21). Functions that the graph calls have graphs of
    their own, which their owner may still train: their gradients stay.
    """
    registry = ops.gradient_registry._registry
    for node in graph.get_operations():
        try:
            name = node.get_attr(_REGISTERED_NAME)
        except ValueError:  # it has none
            continue
        registry.pop(name.decode(), None)
