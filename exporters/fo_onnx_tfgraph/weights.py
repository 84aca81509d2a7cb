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
"""Where weights begin in their file: ONNX asks for multiples of the page size, to map them (``docs/ExternalData.md``)."""

Weights = dict[str, NDArray[Any]]
"""Values by the name of the TensorFlow node."""


def weight_bytes(traced: Any) -> int:
    """Bytes of everything that the conversion makes constants of: variables, captured tensors, constants of the graph."""
    found = sum(v.shape.num_elements() * v.dtype.size for v in traced.variables)
    found += sum(_bytes(t) for t, _ in traced.graph.captures if t.dtype != tf.resource)
    for graph in (traced.graph, *(f.graph for f in traced.graph._functions.values() if hasattr(f, "graph"))):
        found += sum(_bytes(o.outputs[0]) for o in graph.get_operations() if o.type == "Const")
    return int(found)


def _bytes(tensor: tf.Tensor) -> int:
    return int((tensor.shape.num_elements() or 0) * max(tensor.dtype.size, 1))


def captures_to_constants(frozen: Any, traced: Any, kept: Weights) -> set[str]:
    """Makes constants of the placeholders that stand for captured tensors; returns their names.

    Freezing does so with variables only. Keras' EfficientNet and Normalization hold eager tensors.

    Args:
        frozen: The graph as a GraphDef, changed in place.
        traced: The function that it is of.
        kept: Those that stay placeholders.
    """
    values = {
        placeholder.op.name: tensor
        for tensor, placeholder in traced.graph.captures
        if tensor.dtype != tf.resource and placeholder.op.name not in kept
    }
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in values:
            value = values[node.name].numpy()
            dtype = node.attr["dtype"].type
            node.ClearField("attr")
            node.op = "Const"
            node.attr["dtype"].type = dtype
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return set(values)


def set_aside(frozen: Any, traced: Any) -> Weights:
    """Takes the large constants and captured tensors out of a graph, where placeholders without values stay.

    tf2onnx copies all weights once for each of its optimisers: a model of 2.2 GB took more than 23 GB of memory.

    Args:
        frozen: The graph as a GraphDef, changed in place.
        traced: The function that it is of.
    """
    captured = {
        placeholder.op.name: tensor for tensor, placeholder in traced.graph.captures if tensor.dtype != tf.resource
    }
    found: Weights = {}
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in captured:
            if _bytes(captured[node.name]) >= SET_ASIDE_BYTES:
                found[node.name] = captured[node.name].numpy()
        elif node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= SET_ASIDE_BYTES:
            value = tf.make_ndarray(node.attr["value"].tensor)
            found[node.name] = value
            dtype = node.attr["dtype"].type
            node.ClearField("attr")
            node.op = "Placeholder"
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return found


def put_back(proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Writes weights that were set aside to `path`, and names them in the model as initializers that lie there.

    Args:
        proto: The model, with an input ``"<node>:0"`` for each of them that it uses; changed in place.
        weights: What `set_aside` gave.
        path: A file in the folder of the model.
    """
    used = {i.name for i in proto.graph.input}
    with path.open("wb") as file:
        for node, value in weights.items():
            name = f"{node}:0"
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
