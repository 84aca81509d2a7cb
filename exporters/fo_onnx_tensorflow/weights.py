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
    size += sum(map(_bytes, _captures_of(traced).values()))
    # Functions that the graph calls hold constants of their own.
    for graph in (traced.graph, *(f.graph for f in traced.graph._functions.values() if hasattr(f, "graph"))):
        size += sum(_bytes(o.outputs[0]) for o in graph.get_operations() if o.type == "Const")
    return int(size)


def _bytes(tensor: tf.Tensor) -> int:
    return int((tensor.shape.num_elements() or 0) * max(tensor.dtype.size, 1))


def _captures_of(traced: Any) -> dict[str, tf.Tensor]:
    """Return the tensors that a function captured by the names of their placeholders, without handles of variables."""
    return {p.op.name: tensor for tensor, p in traced.graph.captures if tensor.dtype != tf.resource}


def take_weights(frozen: Any, traced: Any, *, large: bool) -> Weights:
    """Make constants of the placeholders that stand for captured tensors; of a large graph take the large weights out.

    Freezing makes constants of variables only, and Keras' EfficientNet and Normalization hold eager tensors. tf2onnx
    copies all constants once for each of its optimisers: a model of 2.2 GB took more than 23 GB of memory.

    Args:
        frozen: The graph as a GraphDef, changed in place.
        traced: The function that it is of.
        large: Whether the large weights become placeholders, without values, and are returned.
    """
    captured = _captures_of(traced)
    weights: Weights = {}
    for node in frozen.node:
        if node.op == "Placeholder" and node.name in captured:
            value = captured[node.name].numpy()
            if large and _bytes(captured[node.name]) >= SET_ASIDE_BYTES:
                weights[node.name] = value
            else:
                _change_operator(node, "Const")
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        elif large and node.op == "Const" and len(node.attr["value"].tensor.tensor_content) >= SET_ASIDE_BYTES:
            weights[node.name] = tf.make_ndarray(node.attr["value"].tensor)
            _change_operator(node, "Placeholder")
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(weights[node.name].shape).as_proto())
    return weights


def _change_operator(node: Any, operator: str) -> None:
    dtype = node.attr["dtype"].type
    node.ClearField("attr")
    node.op = operator
    node.attr["dtype"].type = dtype


def put_back(proto: onnx.ModelProto, weights: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write weights that were taken out to `path`, and name them in the model as initializers that lie there.

    Args:
        proto: The model, with an input ``"<node>:0"`` for each of them that it uses; changed in place.
        weights: The weights that `take_weights` returned.
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
