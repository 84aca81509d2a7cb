"""The graph that sessions on the CPU are opened with: the file's own, with nodes fused. The file stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .attention import fuse_attention
from .gelu import fuse_gelu
from .graph_view import GraphView
from .layer_norm import fuse_layer_norm
from .operator_sets import INPUTS_OPSET, may_be_raised, raise_opset
from .softmax import fuse_softmax

if TYPE_CHECKING:
    import onnx

_SIGNS = ("Softmax", "Exp", "Erf", "Tanh", "Reciprocal")
"""Without one of these operators there is nothing to fuse."""
MOST_BYTES = 1 << 30
"""A larger protobuf is not copied. External data are no part of it."""


@dataclass(frozen=True)
class FusedGraph:
    """A graph with fused nodes.

    Attributes:
        model: A copy of the model.
        counts: How many nodes of each kind there are in place of several.
    """

    model: onnx.ModelProto
    counts: dict[str, int]


def fuse_graph(model: onnx.ModelProto) -> FusedGraph | None:
    """Return a copy of a model with attention, GELU and layer normalisation as one node each; ``None`` if nothing is to be fused."""
    import onnx

    if not any(node.op_type in _SIGNS for node in model.graph.node) or model.ByteSize() > MOST_BYTES:
        return None
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    passes: dict[str, Callable[[GraphView], int]] = {}
    if may_be_raised(fused):
        raise_opset(fused, INPUTS_OPSET)
        # Attention is made of a softmax.
        passes = {"Softmax": fuse_softmax, "LayerNormalization": fuse_layer_norm, "Attention": fuse_attention}
    # The shapes of what is computed after an operator that is not ONNX's own are not inferred.
    passes["Gelu"] = fuse_gelu
    counts = {name: fuse(GraphView(fused)) for name, fuse in passes.items()}
    counts = {name: count for name, count in counts.items() if count}
    return FusedGraph(fused, counts) if counts else None
