"""ONNX nodes in place of the TensorFlow operators that jax2tf would put into a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fo_onnx_tensorflow.foreign_nodes import foreign_op
from jax.experimental.jax2tf import jax2tf


def onnx_node(operator: str, inputs: Sequence[Any], outputs: Sequence[tuple[Any, Any]], **attributes: Any) -> list[Any]:
    """Put one ONNX node into the TensorFlow graph that is being traced, and return its outputs.

    Args:
        operator: ONNX's name of it.
        inputs: TensorFlow tensors.
        outputs: Dtype and shape of each output; a size is a number, None, or one of JAX's symbolic ones.
        attributes: The node's attributes.
    """

    def build(graph: Any, names: Sequence[str]) -> Sequence[str]:
        node = graph.make_node(operator, list(names), attr=attributes, output_count=len(outputs))
        return list(node.output)

    specs = [(dtype, [d if isinstance(d, int) else None for d in shape]) for dtype, shape in outputs]
    return foreign_op(inputs, specs, build, name=operator)


def sizes_of(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Return a shape as numbers and, for symbolic sizes, scalar tensors."""
    return tuple(jax2tf._eval_shape(tuple(shape)))
