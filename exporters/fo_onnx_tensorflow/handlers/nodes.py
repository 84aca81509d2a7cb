"""ONNX nodes that take the place of a TensorFlow node in tf2onnx's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tf2onnx import utils


class Nodes:
    """ONNX nodes in place of one TensorFlow node.

    Attributes:
        operator: TensorFlow's name of the node's operator.
        inputs: Names of the node's inputs.
    """

    def __init__(self, graph: Any, node: Any) -> None:
        self._graph, self._node = graph, node
        self.operator = str(node.type)
        self.inputs = list(node.input)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a tensor."""
        dtype: np.dtype[Any] = np.dtype(utils.map_onnx_to_numpy_type(self._graph.get_dtype(name)))
        return dtype

    def shape(self, name: str) -> list[int]:
        """Return the shape of a tensor, -1 for what is dynamic."""
        shape = self._graph.get_shape(name)
        if shape is None:
            raise ValueError(f"the shape of {name} is not known")
        return list(shape)

    def attribute(self, name: str, default: int) -> int:
        """Return an integer attribute of the node."""
        return int(self._node.get_attr_value(name, default))

    def text(self, name: str) -> str:
        """Return a text attribute of the node."""
        return str(self._node.get_attr_value(name).decode())

    def const(self, value: ArrayLike, dtype: Any) -> str:
        """Make a constant; return its name."""
        name = utils.make_name(self._node.name)
        return str(self._graph.make_const(name, np.asarray(value, dtype)).output[0])

    def make(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Make a node; return the name of its output."""
        return str(self._graph.make_node(operator, list(inputs), attr=attributes).output[0])

    def cast(self, name: str, dtype: Any) -> str:
        """Cast a tensor to another dtype; return the name of the result."""
        return self.make("Cast", name, to=utils.map_numpy_to_onnx_dtype(np.dtype(dtype)))

    def replace(self, *results: str) -> None:
        """Put `results` in place of the node's outputs."""
        graph, node = self._graph, self._node
        outputs = [(output, graph.get_dtype(output), graph.get_shape(output)) for output in node.output]
        graph.remove_node(node.name)
        # Under the names of the node's outputs, which the rest of the graph, its outputs and loop bodies read.
        for result, (output, dtype, shape) in zip(results, outputs, strict=True):
            graph.make_node("Identity", [result], outputs=[output], dtypes=[dtype], shapes=[shape])


Build = Callable[[Nodes], str]
"""Makes the nodes that stand for a TensorFlow node, and returns the name of their result."""
