"""Edits of the ONNX model that tf2onnx made: names of tensors, and sigmoids that are written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import onnx
from onnx import numpy_helper


def rename_tensors(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename tensors everywhere in a model, subgraphs included.

    A TensorFlow placeholder cannot be called ``"image.left"`` or ``"0"``, an ONNX input can.

    Args:
        proto: The model, changed in place.
        names: New names by old ones. A tensor that already has one of the new names, and is none of those to be
            renamed, gets another.
    """
    used = {name for graph in _graphs(proto.graph) for name in _tensors(graph)}
    # A tensor of the model that already has a new name makes room.
    changes = dict(names)
    for new in set(names.values()) & (used - set(names)):
        changes[new] = unused_name(new, used | set(names.values()))
    for graph in _graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = changes.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [changes.get(n, n) for n in node.input]
            node.output[:] = [changes.get(n, n) for n in node.output]


def unused_name(name: str, used: Collection[str]) -> str:
    """Return `name`, with the first number that makes it unused if it is among `used`."""
    candidate, number = name, 0
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def fold_sigmoids(proto: onnx.ModelProto) -> None:
    """Replace ``1 / (1 + exp(-x))`` in the main graph by Sigmoid, in place. Other readers of its parts keep them.

    jax2tf has no sigmoid for graphs: ``lax.logistic`` is written out. Of a lone output whose values are in [0, 1] only
    the operator says whether they are probabilities.
    """
    graph = proto.graph
    producers = {output: node for node in graph.node for output in node.output}
    # The 1 may be an initializer or a node.
    ones = {t.name for t in graph.initializer if _is_one(t)}
    ones |= {n.output[0] for n in graph.node if n.op_type == "Constant" and any(_is_one(a.t) for a in n.attribute)}
    for node in graph.node:
        x = _sigmoid_argument(node, producers, ones)
        if x is not None:
            node.op_type = "Sigmoid"
            node.input[:] = [x]
            del node.attribute[:]
    _drop_unread(graph, ("Add", "Exp", "Neg"))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _graphs(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (*node.input, *node.output)


def _sigmoid_argument(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], ones: set[str]) -> str | None:
    """Return the x of a node that ends ``1 / (1 + exp(-x))``; ``None`` of any other."""
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
    """Remove nodes of these operators whose results nobody reads any more, the last first."""
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
