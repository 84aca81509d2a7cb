"""ONNX nodes put directly where jax2tf would put TensorFlow's operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fo_onnx_tfgraph.foreign import foreign_op
from jax._src import core
from jax.experimental.jax2tf import jax2tf


def onnx_node(operator: str, inputs: Sequence[Any], outputs: Sequence[tuple[Any, Any]], **attributes: Any) -> list[Any]:
    """One ONNX node in the TensorFlow graph that is being traced.

    Args:
        operator: ONNX's name of it.
        inputs: TensorFlow tensors.
        outputs: Dtype and shape of each output; a size is a number, None, or one of JAX's symbolic ones.
        attributes: The node's attributes.
    """

    def build(graph: Any, names: Sequence[str]) -> Sequence[str]:
        node = graph.make_node(operator, list(names), attr=attributes, output_count=len(outputs))
        return list(node.output)

    shaped = [(dtype, [d if isinstance(d, int) else None for d in shape]) for dtype, shape in outputs]
    return foreign_op(inputs, shaped, build, name=operator)


def sizes(shape: Sequence[Any]) -> tuple[Any, ...]:
    """A shape as numbers and, for symbolic sizes, scalar tensors."""
    return tuple(jax2tf._eval_shape(tuple(shape)))


def is_constant(*shapes: Any) -> bool:
    """Whether no size is symbolic."""
    return all(core.is_constant_shape(tuple(shape)) for shape in shapes)
