"""Names of tensors in an ONNX model: a TensorFlow placeholder cannot be called ``"image.left"`` or ``"0"``, an ONNX input can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def rename_tensors(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Renames tensors everywhere in a model, subgraphs included.

    Args:
        proto: The model, changed in place.
        names: New names by old ones. A tensor that already has one of the new names, and is none of those to be renamed,
            gets another.
    """
    used = {name for graph in _graphs(proto.graph) for name in _tensors(graph)}
    changed = dict(names)
    for new in set(names.values()) & (used - set(names)):
        changed[new] = unused_name(new, used | set(names.values()))
    for graph in _graphs(proto.graph):
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = changed.get(value.name, value.name)
        for node in graph.node:
            node.input[:] = [changed.get(n, n) for n in node.input]
            node.output[:] = [changed.get(n, n) for n in node.output]


def unused_name(name: str, used: set[str] | Sequence[str]) -> str:
    """`name` where it is not among `used`, else `name` with the first number that makes it so."""
    found, number = name, 0
    while found in used:
        number += 1
        found = f"{name}_{number}"
    return found


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
