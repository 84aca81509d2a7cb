"""Guards of indices: a row whose index is outside of the table that it is looked up in comes out as NaN.

A ``Gather`` takes negative indices from the end, and fails on the whole batch if one is past the end. Where the original
refuses such a row, the guard puts a valid index in its place and NaN into that row of the output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .graph_head import opset_of

if TYPE_CHECKING:
    import onnx

PREFIX = "fo_onnx_guard/"
LEAST_OPSET = 9
"""Where came with operator set 9; older graphs are not guarded."""


@dataclass(frozen=True)
class IndexRange:
    """The indices that a model takes at one of its inputs.

    Attributes:
        name: The graph's input.
        least: The least index.
        largest: The largest one.
    """

    name: str
    least: int
    largest: int


def table_lengths(model: onnx.ModelProto) -> list[int]:
    """Return the lengths of the tables of weights that something is looked up in, in order, each once."""
    if (opset_of(model) or 0) < LEAST_OPSET:
        return []
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    lookups = (node for node in model.graph.node if node.op_type in ("Gather", "GatherND", "GatherElements"))
    tables = (shapes[node.input[0]] for node in lookups if node.input[0] in shapes and node.input[1] not in shapes)
    return sorted({shape[0] for shape in tables if shape})


def guard_indices(model: onnx.ModelProto, raw_output: str, ranges: list[IndexRange]) -> None:
    """Put guards into `model`, in place; it has no head yet, and one output.

    Args:
        model: The model.
        raw_output: Its output.
        ranges: The indices that it takes, by input.
    """
    import onnx

    graph = model.graph
    output = next(value for value in graph.output if value.name == raw_output).type.tensor_type
    inputs = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    flags = []
    for number, limits in enumerate(ranges):
        name, out = limits.name, f"{PREFIX}{number}/"
        dtype = onnx.helper.tensor_dtype_to_np_dtype(inputs[name])
        _rename(graph.node, name, out + "index", inputs=True)
        for constant, value in (("least", limits.least), ("largest", limits.largest)):
            graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), out + constant))
        nodes += [
            onnx.helper.make_node("Less", [name, out + "least"], [out + "below"]),
            onnx.helper.make_node("Greater", [name, out + "largest"], [out + "above"]),
            onnx.helper.make_node("Or", [out + "below", out + "above"], [out + "outside"]),
            onnx.helper.make_node("Where", [out + "outside", out + "least", name], [out + "index"]),
            # One flag per row: the largest of its values.
            onnx.helper.make_node("Cast", [out + "outside"], [out + "ones"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Flatten", [out + "ones"], [out + "rows"], axis=1),
            _reduce_max(out + "rows", out + "flag", opset_of(model) or LEAST_OPSET),
        ]
        flags.append(out + "flag")
    # The rows of the output.
    shape = np.array([-1] + [1] * (len(output.shape.dim) - 1))
    constants = {
        "axes": np.array([1]),
        "zero": np.zeros((), np.float32),
        "shape": shape,
        "nan": np.asarray(np.nan, onnx.helper.tensor_dtype_to_np_dtype(output.elem_type)),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(value, PREFIX + name) for name, value in constants.items())
    _rename(graph.node, raw_output, PREFIX + "raw", inputs=True, outputs=True)
    end = [
        onnx.helper.make_node("Max", flags, [PREFIX + "flag"]),
        onnx.helper.make_node("Reshape", [PREFIX + "flag", PREFIX + "shape"], [PREFIX + "column"]),
        onnx.helper.make_node("Greater", [PREFIX + "column", PREFIX + "zero"], [PREFIX + "is_outside"]),
        onnx.helper.make_node("Where", [PREFIX + "is_outside", PREFIX + "nan", PREFIX + "raw"], [raw_output]),
    ]
    # Nodes of a graph stand after those that they need.
    model_nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *model_nodes, *end])


def _reduce_max(name: str, output: str, opset: int) -> onnx.NodeProto:
    import onnx

    # From operator set 18 on axes are an input.
    if opset < 18:
        return onnx.helper.make_node("ReduceMax", [name], [output], axes=[1], keepdims=1)
    return onnx.helper.make_node("ReduceMax", [name, PREFIX + "axes"], [output], keepdims=1)


def _rename(
    nodes: Iterable[onnx.NodeProto], old: str, new: str, *, inputs: bool = False, outputs: bool = False
) -> None:
    """Rename a value, in subgraphs too."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g.node, old, new, inputs=inputs, outputs=outputs)
        if inputs:
            node.input[:] = [new if name == old else name for name in node.input]
        if outputs:
            node.output[:] = [new if name == old else name for name in node.output]
