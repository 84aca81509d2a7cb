"""Outputs that give each class apart become the tensor (n, classes) that they are made of.

skl2onnx and onnxmltools write classifiers so, unless they get ``zipmap=False``: as a sequence of maps from classes to scores
(ZipMap, ai.onnx.ml), or with ``zipmap="columns"`` as one output for each class.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

CLASSES_OF = "fo_onnx.classes_of."
"""What a metadata key begins with that holds the names of the columns of an output that was a map."""


def join_classes(proto: onnx.ModelProto) -> None:
    """Let such outputs be the tensor within, in place."""
    _take_maps_off(proto)
    _join_columns(proto)


def _take_maps_off(proto: onnx.ModelProto) -> None:
    """Let an output that is a sequence of maps be the tensor within, under the output's name.

    The names of the columns are left in the metadata under ``classes_of.<output>``.
    """
    import onnx

    for node in [n for n in proto.graph.node if n.op_type == "ZipMap" and n.domain == "ai.onnx.ml"]:
        outputs = [o for o in proto.graph.output if o.name == node.output[0]]
        labels = [label for a in node.attribute for label in (*a.strings, *a.ints)]
        if not outputs or not labels:
            continue
        scores = onnx.helper.make_node("Cast", node.input, node.output, node.name, to=onnx.TensorProto.FLOAT)
        names = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
        info = onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, ["batch", len(labels)])
        node.CopyFrom(scores)
        outputs[0].CopyFrom(info)
        if names != [str(i) for i in range(len(names))]:
            proto.metadata_props.add(key=f"{CLASSES_OF}{info.name}", value=json.dumps(names))


def _join_columns(proto: onnx.ModelProto) -> None:
    """Let outputs that are the columns of one tensor, from the first one on, be that tensor under its own name.

    The one other output must be the predicted class.
    """
    import onnx

    producers = {out: node for node in proto.graph.node for out in node.output}
    columns: dict[str, str] = {}
    for output in proto.graph.output:
        reshape = producers.get(output.name)
        column = producers.get(reshape.input[0]) if reshape is not None and reshape.op_type == "Reshape" else None
        if column is None or column.op_type != "Slice" or len(column.input) != 4:
            continue
        place = [_read_number(proto, name) for name in column.input[1:]]
        if place == [len(columns), len(columns) + 1, 1]:
            columns[output.name] = column.input[0]
    others = [o for o in proto.graph.output if o.name not in columns]
    tensors, kinds = {*columns.values()}, [o.type.tensor_type.elem_type for o in others]
    # Beside them lies the predicted class; other slices of one tensor are no classes.
    if len(columns) < 2 or len(tensors) > 1 or kinds not in ([onnx.TensorProto.INT64], [onnx.TensorProto.STRING]):
        return
    dtype = next(o.type.tensor_type.elem_type for o in proto.graph.output if o.name in columns)
    tensor = onnx.helper.make_tensor_value_info(tensors.pop(), dtype, ["batch", len(columns)])
    del proto.graph.output[:]
    proto.graph.output.extend([*others, tensor])


def _read_number(proto: onnx.ModelProto, name: str) -> int | None:
    """Return the one whole number that a constant of the graph holds; ``None`` if there is no such constant."""
    import onnx

    tensor = next((t for t in proto.graph.initializer if t.name == name), None)
    if tensor is None or [*tensor.dims] not in ([], [1]) or tensor.data_type != onnx.TensorProto.INT64:
        return None
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    return int(onnx.numpy_helper.to_array(tensor).reshape(()))
