"""Sigmoids that keep small numbers: ONNX Runtime 1.32 gives 0 from −37 on, where the true value is 1e-16.

One-vs-rest and calibration divide such numbers by their sum, so that their first digits count, however small they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .graph import DOUBLE

if TYPE_CHECKING:
    import onnx

ONE = "sigmoids/one"


def expand_sigmoids(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in which 1 / (1 + exp(−x)) stands for each sigmoid in float64."""
    import onnx

    if not any(node.op_type == "Sigmoid" for node in proto.graph.node):
        return proto
    typed = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*typed.value_info, *typed.input)}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        if node.op_type != "Sigmoid" or kinds.get(node.input[0]) != DOUBLE:
            nodes.append(node)
            continue
        (output,) = node.output
        negative, exponential, total = (f"{output}/sigmoid/{part}" for part in ("negative", "exponential", "total"))
        nodes += [
            onnx.helper.make_node("Neg", list(node.input), [negative]),
            onnx.helper.make_node("Exp", [negative], [exponential]),
            onnx.helper.make_node("Add", [exponential, ONE], [total]),
            onnx.helper.make_node("Reciprocal", [total], [output]),
        ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(()), ONE))
    return proto
