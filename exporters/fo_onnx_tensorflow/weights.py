"""Weights on their way from TensorFlow to a file: captured tensors, and those of models above protobuf's limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from numpy.typing import NDArray

SET_ASIDE_BYTES = 1_000_000
"""Size from which on a weight of a large model does not go through the conversion."""
_ALIGNMENT = 4096
"""Alignment of weights in their file: ONNX asks for multiples of the page size (``docs/ExternalData.md``)."""

Weights = dict[str, NDArray[Any]]
"""Values by the name of the TensorFlow node."""


def weight_bytes(traced: Any) -> int:
    """Return the bytes of all constants of the conversion: variables, captured tensors, constants of the graph."""
    size = sum(v.shape.num_elements() * v.dtype.size for v in traced.variables)
    size += sum(_bytes(t) for t, _ in traced.graph.captures if t.dtype != tf.resource)
    # Functions that the graph calls hold constants of their own.
    for graph in (traced.graph, *(f.graph for f in traced.graph._functions.values() if hasattr(f, "graph"))):
        size += sum(_bytes(o.outputs[0]) for o in graph.get_operations() if o.type == "Const")
    return int(size)


def _bytes(tensor: tf.Tensor) -> int:
    return int((tensor.shape.num_elements() or 0) * max(tensor.dtype.size, 1))


def captures_to_constants(frozen: Any, traced: Any, placeholders: Weights) -> set[str]:
    """Make constants of the placeholders that stand for captured tensors; return their names.

    Freezing does so with variables only. Keras' EfficientNet and Normalization hold eager tensors.

    Args:
        frozen: The graph as a GraphDef, changed in place.
        traced: The function that it is of.
        placeholders: Those that stay placeholders.
    """
    values = {
        placeholder.op.name: tensor
        for tensor, placeholder in traced.graph.captures
        if tensor.dtype != tf.resource and placeholder.op.name not in placeholders
    }
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in values:
            value = values[node.name].numpy()
            _change_operator(node, "Const")
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return set(values)


def set_aside(frozen: Any, traced: Any) -> Weights:
    """Take the large constants and captured tensors out of a graph, where placeholders without values stay.

    tf2onnx copies all weights once for each of its optimisers: a model of 2.2 GB took more than 23 GB of memory.

    Args:
        frozen: The graph as a GraphDef, changed in place.
        traced: The function that it is of.
    """
    captured = {
        placeholder.op.name: tensor for tensor, placeholder in traced.graph.captures if tensor.dtype != tf.resource
    }
    weights: Weights = {}
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in captured:
            if _bytes(captured[node.name]) >= SET_ASIDE_BYTES:
                weights[node.name] = captured[node.name].numpy()
        elif node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= SET_ASIDE_BYTES:
            value = tf.make_ndarray(node.attr["value"].tensor)
            weights[node.name] = value
            _change_operator(node, "Placeholder")
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return weights


def _change_operator(node: Any, operator: str) -> None:
    dtype = node.attr["dtype"].type
    node.ClearField("attr")
    node.op = operator
    node.attr["dtype"].type = dtype


def put_back(proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write weights that were set aside to `path`, and name them in the model as initializers that lie there.

    Args:
        proto: The model, with an input ``"<node>:0"`` for each of them that it uses; changed in place.
        weights: The weights that `set_aside` returned.
        path: A file in the folder of the model.
    """
    used = {i.name for i in proto.graph.input}
    with path.open("wb") as file:
        for node, value in weights.items():
            name = f"{node}:0"
            # tf2onnx drops those that nothing needs.
            if name not in used:
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            tensor = proto.graph.initializer.add(
                name=name,
                data_type=onnx.helper.np_dtype_to_tensor_dtype(value.dtype),
                dims=value.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            where = {"location": path.name, "offset": file.tell(), "length": value.nbytes}
            tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in where.items())
            np.ascontiguousarray(value).tofile(file)
