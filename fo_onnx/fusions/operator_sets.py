"""A model in a newer operator set than its file, for the sake of one operator of that set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..plugin_kit.graph_checks import messages_in
from .graph_view import OWN_DOMAINS, attribute

if TYPE_CHECKING:
    import onnx

LEAST_OPSET = 13
"""Before it softmax is over several axes, and much else is written in another way."""
INPUTS_OPSET = 18
"""From here on the axes of reductions are an input, and a Split says how many parts it makes."""
NEWEST_OPSET = 23
_CHANGED_BEFORE_18 = ("LpPool", "Resize", "RoiAlign")
_CHANGED_AFTER_18 = ("DFT", "GridSample", "GroupNormalization")
"""Operators that mean something else, or are written in another way, in `NEWEST_OPSET` (https://onnx.ai/onnx/operators/)."""


def default_opset(model: onnx.ModelProto) -> int | None:
    """Return the version of the default operator set; ``None`` if it is imported not once, or twice."""
    versions = [o.version for o in model.opset_import if o.domain in OWN_DOMAINS]
    return versions[0] if len(versions) == 1 else None


def may_be_raised(model: onnx.ModelProto) -> bool:
    """Return whether every node of a model means the same in `NEWEST_OPSET`, or is brought to its form by `raise_opset`."""
    import onnx

    opset = default_opset(model)
    if opset is None or not LEAST_OPSET <= opset <= NEWEST_OPSET or model.functions:
        return False
    changed = () if opset == NEWEST_OPSET else _CHANGED_AFTER_18 + (_CHANGED_BEFORE_18 if opset < INPUTS_OPSET else ())
    return opset == NEWEST_OPSET or not any(
        node.op_type in changed or (node.op_type == "AveragePool" and attribute(node, "ceil_mode", 0))
        for node in messages_in(model.graph, onnx.NodeProto)
    )


def raise_opset(model: onnx.ModelProto, opset: int) -> None:
    """Bring a model that `may_be_raised` to an operator set from 18 on, in place; one that is in it or a newer one stays."""
    import onnx

    before = default_opset(model)
    if before is None or before >= opset:
        return
    if before < INPUTS_OPSET:
        names: dict[tuple[int, ...], str] = {}
        for node in messages_in(model.graph, onnx.NodeProto):
            if node.domain not in OWN_DOMAINS:
                continue
            if node.op_type == "Split" and len(node.input) < 2:
                node.attribute.append(onnx.helper.make_attribute("num_outputs", len(node.output)))
            # The axes of sums, and of Squeeze and Unsqueeze, are an input since 13.
            axes = attribute(node, "axes") if node.op_type.startswith("Reduce") else None
            if axes is not None:
                name = names.setdefault(tuple(axes), f"fo_onnx_axes_{len(names)}")
                node.input.append(name)
                others = [a for a in node.attribute if a.name != "axes"]
                del node.attribute[:]
                node.attribute.extend(others)
        # Bodies of If, Loop and Scan see the constants of the graph around them.
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(axes, np.int64), name) for axes, name in names.items()
        )
    next(o for o in model.opset_import if o.domain in OWN_DOMAINS).version = opset
