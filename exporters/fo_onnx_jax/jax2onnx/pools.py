"""Max-pooling over at most three axes, as ONNX Runtime has it.

jax2onnx 0.17.1 writes a max-pool over an array of r axes as a MaxPool with r spatial ones, between two axes of size 1 put
in front and taken away again (``plugins/jax/lax/reduce_window_max.py``). So the pool of each image model has four, where
ONNX allows any number (operator MaxPool, "N x C x D1 x D2 … Dn") and ONNX Runtime one to three
(``core/providers/cpu/nn/pool.cc``: "Unsupported pooling size"), and says so only when it runs. The axes over which nothing is
pooled, batch and channels, can take the places of the two in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

MOST_SPATIAL_AXES = 3
"""Of a pool in ONNX Runtime."""
_PER_AXIS = ("kernel_shape", "strides", "dilations")


def narrow_pools(graph: onnx.GraphProto) -> None:
    """Give the MaxPool nodes of `graph`, and of the graphs within, at most three spatial axes if that can be done."""
    # The innermost first, since the nodes of a graph are copied when they are put into it.
    for inner in reversed(list(all_graphs(graph))):
        nodes = [replacement for node in inner.node for replacement in _narrow_pool(node)]
        del inner.node[:]
        inner.node.extend(nodes)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those within its nodes, each before those within it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from all_graphs(inner)


def _narrow_pool(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return what stands for `node`: itself, or a pool over fewer axes between transpositions."""
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    kernel: Sequence[int] = settings.get("kernel_shape", ())
    if node.op_type != "MaxPool" or len(kernel) <= MOST_SPATIAL_AXES or set(settings) - {*_PER_AXIS, "pads"}:
        return [node]
    rank = len(kernel)
    per_axis = {name: list(settings.get(name, [1] * rank)) for name in _PER_AXIS}
    pads = np.reshape(settings.get("pads", [0] * 2 * rank), (2, rank))
    free = [i for i in range(rank) if kernel[i] == per_axis["strides"][i] == 1 and not pads[:, i].any()]
    if len(free) < 2 or rank - 2 > MOST_SPATIAL_AXES or len(node.output) != 1:
        return [node]
    # Two axes over which nothing is pooled take the places of batch and channels.
    spatial = [i for i in range(rank) if i not in free[:2]]
    order = [*free[:2], *spatial]
    attributes: dict[str, Any] = {name: [values[i] for i in spatial] for name, values in per_axis.items()}
    attributes["pads"] = [int(p) for p in pads[:, spatial].ravel()]
    (x,), (y,) = node.input, node.output
    axes, flat, ahead, pooled, behind = (f"{y}/{n}" for n in ("axes", "flat", "ahead", "pooled", "behind"))
    return [
        helper.make_node("Constant", [], [axes], value=helper.make_tensor(axes, onnx.TensorProto.INT64, [2], [0, 1])),
        # Takes the two axes away only if their size is 1, and fails otherwise.
        helper.make_node("Squeeze", [x, axes], [flat]),
        helper.make_node("Transpose", [flat], [ahead], perm=order),
        helper.make_node("MaxPool", [ahead], [pooled], name=node.name, **attributes),
        helper.make_node("Transpose", [pooled], [behind], perm=[order.index(i) for i in range(rank)]),
        helper.make_node("Unsqueeze", [behind, axes], [y]),
    ]
