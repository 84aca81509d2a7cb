"""Indices outside of a table, which XLA clamps.

jax2onnx 0.17.1 writes ``table[i]`` as a Gather (``plugins/jax/lax/gather.py``), in which an index below 0 counts from the end and one
past the end is an error. In a jaxpr negative indices have been turned into positive ones before the gather, so that one which is
still below 0 is outside of the table (documentation of ``jax.lax.gather`` and of `jax.lax.GatherScatterMode`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..jaxpr.interpreter import inner_jaxprs
from .pools import all_graphs

_CLAMPS = (jax.lax.GatherScatterMode.CLIP, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def clamps_indices(jaxpr: Any) -> bool:
    """Return whether every gather of a program clamps its indices; those of ``jnp.take`` give NaN outside of the table."""
    modes = [e.params["mode"] for e in _equations(jaxpr) if e.primitive.name == "gather"]
    return bool(modes) and all(mode in _CLAMPS for mode in modes)


def holds_lookups(graph: onnx.GraphProto) -> bool:
    """Return whether there is a Gather from a weight by computed indices, in `graph` or in a graph within."""
    sizes = _weight_shapes(graph)
    return any(_is_lookup(node, sizes) for inner in all_graphs(graph) for node in inner.node)


def clamp_indices(graph: onnx.GraphProto) -> None:
    """Clamp the indices of each Gather from a weight, in `graph` and in the graphs within."""
    sizes = _weight_shapes(graph)
    for inner in reversed(list(all_graphs(graph))):
        nodes = [part for node in inner.node for part in _clamp_gather(node, sizes)]
        del inner.node[:]
        inner.node.extend(nodes)


def _weight_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    return {t.name: tuple(t.dims) for inner in all_graphs(graph) for t in inner.initializer}


def _is_lookup(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> bool:
    return node.op_type == "Gather" and node.input[0] in sizes and node.input[1] not in sizes


def _clamp_gather(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> list[onnx.NodeProto]:
    """Return what stands for `node`: itself, after its indices were clamped if it takes rows of a weight by computed ones."""
    if not _is_lookup(node, sizes):
        return [node]
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    last = sizes[node.input[0]][axis] - 1
    prefix = f"{node.output[0]}/index"
    first, most, wide, least, clamped = (f"{prefix}_{name}" for name in ("first", "last", "wide", "least", "clamped"))
    gather = onnx.NodeProto()
    gather.CopyFrom(node)
    gather.input[1] = clamped
    return [
        helper.make_node("Constant", [], [first], value=numpy_helper.from_array(np.array(0, np.int64))),
        helper.make_node("Constant", [], [most], value=numpy_helper.from_array(np.array(last, np.int64))),
        helper.make_node("Cast", [node.input[1]], [wide], to=onnx.TensorProto.INT64),
        helper.make_node("Max", [wide, first], [least]),
        helper.make_node("Min", [least, most], [clamped]),
        gather,
    ]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation.params):
            yield from _equations(inner)
