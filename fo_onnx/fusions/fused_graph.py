"""The graph that sessions on the CPU are opened with: the file's own, with nodes fused. The file stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .attention import fuse_attention
from .gelu import fuse_gelu
from .graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_SIGNS = ("Softmax", "Erf", "Tanh")
"""Without one of these operators there is nothing to fuse."""
MOST_BYTES = 1 << 30
"""A larger protobuf is not copied. External data are no part of it."""


@dataclass(frozen=True)
class FusedGraph:
    """A graph with fused nodes.

    Attributes:
        model: A copy of the model.
        counts: How many nodes of each kind there are in place of several: ``"Attention"``, ``"Gelu"``.
    """

    model: onnx.ModelProto
    counts: dict[str, int]


def fuse_graph(model: onnx.ModelProto) -> FusedGraph | None:
    """Return a copy of a model with attention and GELU as one node each; ``None`` if nothing is to be fused."""
    import onnx

    if not any(node.op_type in _SIGNS for node in model.graph.node) or model.ByteSize() > MOST_BYTES:
        return None
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    counts = {"Attention": fuse_attention(GraphView(fused), fused), "Gelu": fuse_gelu(GraphView(fused))}
    counts = {name: count for name, count in counts.items() if count}
    return FusedGraph(fused, counts) if counts else None
