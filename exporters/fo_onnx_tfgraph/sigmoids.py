"""Sigmoids that are written out become ONNX's Sigmoid, which says what an output means.

jax2tf has no sigmoid for graphs: ``lax.logistic`` becomes ``1 / (1 + exp(-x))``. Of a lone output whose values are in [0, 1] only
the operator tells whether they are probabilities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import numpy_helper


def fold_sigmoids(proto: onnx.ModelProto) -> None:
    """Replaces ``1 / (1 + exp(-x))`` in the main graph of a model by Sigmoid, in place. What else reads its parts keeps them."""
    graph = proto.graph
    producers = {output: node for node in graph.node for output in node.output}
    ones = {t.name for t in graph.initializer if _is_one(t)}
    ones |= {n.output[0] for n in graph.node if n.op_type == "Constant" and _holds_one(n)}
    for node in graph.node:
        x = _argument(node, producers, ones)
        if x is not None:
            node.op_type = "Sigmoid"
            node.input[:] = [x]
            del node.attribute[:]
    _drop_unread(graph, ("Add", "Exp", "Neg"))


def _argument(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], ones: set[str]) -> str | None:
    """The x of a node that ends ``1 / (1 + exp(-x))``; ``None`` of any other."""
    if node.op_type == "Reciprocal":
        below = node.input[0]
    elif node.op_type == "Div" and node.input[0] in ones:
        below = node.input[1]
    else:
        return None
    total = producers.get(below)
    if total is None or total.op_type != "Add" or not ones & set(total.input):
        return None
    power = next((producers.get(i) for i in total.input if i not in ones), None)
    if power is None or power.op_type != "Exp":
        return None
    negative = producers.get(power.input[0])
    return negative.input[0] if negative is not None and negative.op_type == "Neg" else None


def _drop_unread(graph: onnx.GraphProto, operators: tuple[str, ...]) -> None:
    """Removes nodes of these operators whose results nobody reads any more; the last first."""
    if any(a.HasField("g") or a.graphs for n in graph.node for a in n.attribute):
        return  # a subgraph may read any tensor of the graph around it
    readers = Counter(i for n in graph.node for i in n.input)
    readers.update(o.name for o in graph.output)
    for node in reversed(list(graph.node)):
        if node.op_type in operators and not any(readers[o] for o in node.output):
            readers.subtract(node.input)
            graph.node.remove(node)


def _is_one(tensor: onnx.TensorProto) -> bool:
    if list(tensor.dims) not in ([], [1]) or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    return bool((numpy_helper.to_array(tensor) == 1).all())


def _holds_one(node: onnx.NodeProto) -> bool:
    return any(a.name == "value" and _is_one(a.t) for a in node.attribute)
