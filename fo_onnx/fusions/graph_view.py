"""A graph as fusions read it: which node gives a value, which ones read it, what is constant, how long the axes are."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import first_line
from ..plugin_kit.graph_checks import messages_in

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("fo_onnx.engine")
CONTRIB_DOMAIN = "com.microsoft"
_MOST_VALUES = 1 << 22
"""Larger constants are weights, which no fusion looks into; a causal mask of 2,048 tokens has as many values."""
_STAND_IN_VALUES = 64
"""Constants of so few values can be shapes or axes, which the inference of shapes reads."""
OWN_DOMAINS = ("", "ai.onnx")
_LEAST_INPUTS = dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Equal", "MatMul"), 2) | {"Where": 3}
_LEAST_INPUTS |= dict.fromkeys(
    ("Softmax", "IsNaN", "Exp", "Erf", "Tanh", "Neg", "Sqrt", "Reciprocal", "Transpose", "Reshape", "Expand", "Unsqueeze", "Squeeze", "Max",
     "ReduceMax", "ReduceSum", "ReduceMean", "Cast", "Identity", "Slice", "Gather", "Tile"), 1,
)  # fmt: skip
Dimensions = tuple[int | str | None, ...]


class GraphView:
    """The main graph of a model. Replacements are noted, and made by `finish`; a view is good for one pass."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the nodes of `model`, which `finish` changes in place."""
        import onnx

        graph = model.graph
        self.model = model
        # What lacks an input or output is refused by ONNX Runtime, in its own words.
        self._nodes = [n for n in graph.node if n.output and len(n.input) >= _LEAST_INPUTS.get(n.op_type, 0)]
        self._producers = {out: node for node in self._nodes for out in node.output if out}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self._readers[name].append(node)
        # Values that more than a node of this graph reads: outputs, and what the bodies of If, Loop and Scan use.
        self._kept = {value.name for value in graph.output}
        for node in graph.node:
            if any(a.HasField("g") or a.graphs for a in node.attribute):
                self._kept.update(name for inner in messages_in(node, onnx.NodeProto) for name in inner.input)
                self._kept.update(v.name for g in messages_in(node, onnx.GraphProto) for v in g.output)
        given = {value.name for value in graph.input}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
        for node in self._nodes:
            if node.op_type == "Constant":
                self._tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        self._names = {*self._producers, *self._readers, *self._tensors}
        self._shapes: dict[str, Dimensions] | None = None
        self._replacements: dict[str, list[onnx.NodeProto]] = {}
        self._numbers: dict[float, str] = {}

    # What the graph holds -----------------------------------------------------------------------------------------

    def nodes_of(self, *operators: str) -> list[onnx.NodeProto]:
        """Return the nodes of some of ONNX's own operators, in the order of the graph."""
        return [node for node in self._nodes if node.domain in OWN_DOMAINS and node.op_type in operators]

    def producer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that gives a value, if it is one of ONNX's own `operators`."""
        node = self._producers.get(name)
        return node if node is not None and node.domain in OWN_DOMAINS and node.op_type in operators else None

    def only_reader(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that reads a value, if it is the only one, and one of ONNX's own `operators`."""
        readers = self.readers(name, *operators)
        return readers[0] if len(readers) == 1 else None

    def readers(self, name: str, *operators: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a value, if they are all of ONNX's own `operators`, and nothing else reads it."""
        readers = [] if name in self._kept else self._readers.get(name, [])
        return readers if all(r.domain in OWN_DOMAINS and r.op_type in operators for r in readers) else []

    def is_constant(self, name: str) -> bool:
        """Return whether a value is part of the model file, or of its external data."""
        return name in self._tensors

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant that is part of the model file and not large."""
        import onnx

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL or math.prod(tensor.dims) > _MOST_VALUES:
            return None
        value: NDArray[Any] = onnx.numpy_helper.to_array(tensor)
        return value

    def number(self, name: str) -> float | None:
        """Return the value of a constant that is one float32, and adds no axis to what it is multiplied with."""
        value = self.constant(name)
        if value is None or value.dtype != np.float32 or value.size != 1 or value.ndim > 1:
            return None
        return float(value.reshape(-1)[0])

    def split_number(self, node: onnx.NodeProto | None) -> tuple[float, str] | None:
        """Return the number and the other operand of an addition or product with a number, in any order."""
        if node is None or len(node.input) != 2:
            return None
        for first, second in (node.input, reversed(node.input)):
            if (value := self.number(first)) is not None:
                return value, second
        return None

    def is_value(self, number: float | None, expected: float) -> bool:
        """Return whether a constant is `expected`, but for what rounding to float32, or a text of few digits, has changed."""
        return number is not None and math.isclose(number, expected, rel_tol=1e-4)

    def shape(self, name: str) -> Dimensions | None:
        """Return the lengths of a value's axes, each a number, a name or ``None``; ``None`` if not even their count is known."""
        if self._shapes is None:
            self._shapes = _infer_shapes(self.model)
        return self._shapes.get(name)

    # What becomes of it -------------------------------------------------------------------------------------------

    def new_name(self, stem: str) -> str:
        """Return a name that no value of the graph has."""
        name, count = stem, 1
        while name in self._names:
            name, count = f"{stem}_{count}", count + 1
        self._names.add(name)
        return name

    def add_number(self, value: float) -> str:
        """Return the name of a constant of one float32, which is added unless an earlier call has added it."""
        import onnx

        if value not in self._numbers:
            self._numbers[value] = self.new_name("fo_onnx_number")
            tensor = onnx.numpy_helper.from_array(np.array(value, np.float32), self._numbers[value])
            self.model.graph.initializer.append(tensor)
        return self._numbers[value]

    def replace(self, output: str, nodes: list[onnx.NodeProto]) -> None:
        """Note that `nodes` are to give a value in place of the node that gives it now; their inputs come before that one."""
        self._replacements[output] = nodes

    def finish(self) -> int:
        """Make the replacements, remove what nobody reads any more, and return how many replacements there were."""
        if not self._replacements:
            return 0
        nodes: list[onnx.NodeProto] = []
        for node in self.model.graph.node:
            nodes.extend(self._replacements.get(node.output[0] if node.output else "", [node]))
        used, needed = set(self._kept), []
        for node in reversed(nodes):
            if not used.isdisjoint(node.output):
                needed.append(node)
                used.update(node.input)
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(reversed(needed))
        if all(o.domain != CONTRIB_DOMAIN for o in self.model.opset_import):
            self.model.opset_import.add(domain=CONTRIB_DOMAIN, version=1)
        return len(self._replacements)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return an attribute of a node."""
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _infer_shapes(model: onnx.ModelProto) -> dict[str, Dimensions]:
    """Return the axes of the values of a graph, as far as ONNX infers them; weights are not copied for it."""
    import onnx

    graph, outline = model.graph, onnx.ModelProto(ir_version=model.ir_version)
    outline.opset_import.extend(model.opset_import)
    outline.functions.extend(model.functions)
    for field in ("node", "input", "output", "value_info"):
        getattr(outline.graph, field).extend(getattr(graph, field))
    outline.graph.name = "outline"
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL and math.prod(tensor.dims) <= _STAND_IN_VALUES:
            outline.graph.initializer.append(tensor)
        elif tensor.name not in given:
            outline.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    try:
        graph = onnx.shape_inference.infer_shapes(outline, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as err:
        # ONNX Runtime may take it all the same.
        log.info(
            "the shapes of a graph were not inferred, so that what depends on them is not fused: %s", first_line(err)
        )
        return {}
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape") and (shape := value.type.tensor_type.shape) is not None
    } | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
