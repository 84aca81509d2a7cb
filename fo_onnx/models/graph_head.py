"""The probability head as ONNX nodes, so that one run of the graph gives distributions.

The head is appended to the protobuf in place, about fifteen lines a kind. `onnx.compose.merge_models` is not used: it
reorders outputs and refuses differences of operator set. Its numpy twin is `fo_onnx.distributions.probabilities.apply_head`; a test
holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..contracts.spec import LOGIT_KINDS, OutputKind
from ..distributions.probabilities import UNIT_SUM_TOLERANCE
from ..errors import ModelError, OutputError

if TYPE_CHECKING:
    import onnx

NODE_PREFIX = "fo_onnx_head/"
LEAST_OPSET = 9
"""Where, which the head of probabilities needs, came with operator set 9."""

_UNBOUNDED = ("Gemm", "MatMul", "Conv")
_PASS_THROUGH = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Clip")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default operator set that `model` imports."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def output_kind_of_graph(model: onnx.ModelProto, raw_output: str) -> OutputKind | None:
    """Return what a graph's output means by its last operator; ``None`` if that does not say.

    Raises:
        OutputError: A Sigmoid over two classes or more: a multi-label model.
    """
    value = next(v for v in model.graph.output if v.name == raw_output)
    shape = value.type.tensor_type.shape.dim
    rank, is_binary = len(shape), len(shape) == 1 or (len(shape) == 2 and shape[1].dim_value == 1)
    node = _last_operator(model, raw_output)
    if node is None:
        return None
    if node.op_type == "Sigmoid":
        if is_binary:
            return "binary_probs"
        if rank != 2 or shape[1].dim_value <= 1:
            # How many scores there are is not written down; a batch will tell.
            return None
        raise OutputError(
            f"the graph ends in a Sigmoid over {shape[1].dim_value} classes: a multi-label model gives no distribution over "
            "classes. Say which it is with output=, or reduce it with output_transform=."
        )
    if node.op_type in ("Softmax", "LogSoftmax") and not is_binary:
        default = -1 if opset_of(model) >= 13 else 1
        axis = next((a.i for a in node.attribute if a.name == "axis"), default)
        # A Reshape behind the softmax moves axes, so only the last axis by its negative name is sure there.
        if axis == -1 or (raw_output in node.output and axis == rank - 1) or (rank == 2 and axis == 1):
            return "probs" if node.op_type == "Softmax" else "log_probs"
    return None


def is_unbounded(model: onnx.ModelProto, raw_output: str) -> bool:
    """Return whether a graph ends in an operator whose values have no bounds: Gemm, MatMul, Conv, or a bias after one."""
    keeping_bounds = tuple(op for op in _PASS_THROUGH if op != "Clip")
    node = _last_operator(model, raw_output, keeping_bounds)
    if node is not None and node.op_type == "Add":
        weights = {t.name for t in model.graph.initializer}
        computed = [name for name in node.input if name not in weights]
        node = _last_operator(model, computed[0], keeping_bounds) if len(computed) == 1 else None
    return node is not None and node.op_type in _UNBOUNDED


def _last_operator(
    model: onnx.ModelProto, tensor: str, passing: tuple[str, ...] = _PASS_THROUGH
) -> onnx.NodeProto | None:
    """Return the node of ONNX's own that computes `tensor`, behind those of `passing`, which keep its values in place."""
    producers = {out: node for node in model.graph.node for out in node.output}
    # A node passed twice is one of a loop, which ONNX Runtime refuses.
    while (node := producers.pop(tensor, None)) is not None and node.op_type in passing and node.input:
        tensor = node.input[0]
    return None if node is None or node.domain not in ("", "ai.onnx") else node


def remove(model: onnx.ModelProto, raw_output: onnx.ValueInfoProto) -> None:
    """Takes a head that `fuse` added out again, so that `raw_output` is the model's output as before."""
    rest = [n for n in model.graph.node if not n.name.startswith(NODE_PREFIX)]
    constants = [t for t in model.graph.initializer if not t.name.startswith(NODE_PREFIX)]
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(constants)
    model.graph.output.append(raw_output)


def fuse(
    model: onnx.ModelProto, raw_output: str, kind: OutputKind, temperature: float, classes: int
) -> tuple[str, str | None]:
    """Appends the head to `model`, in place; the distributions become its first output.

    Args:
        model: The model, with or without its external data loaded.
        raw_output: The output that the head takes, (n, k), or (n,) or (n, 1) for the binary kinds.
        kind: What that output means.
        temperature: T of softmax(z / T).
        classes: k of the distributions.

    Returns:
        The name of the output with distributions (n, k) and of the one with logits (n, k), both float32; the second is
        ``None`` where `kind` has no logits. Rows that are no distribution come out as NaN.
    """
    import onnx

    opset = opset_of(model)
    if opset < LEAST_OPSET:
        raise ModelError(
            f"the model is of operator set {opset}; at least {LEAST_OPSET} is needed to add the probability head. "
            "Convert it with onnx.version_converter."
        )
    builder = _Builder(model, opset)
    z = builder.node("Cast", [raw_output], "raw32", to=int(onnx.TensorProto.FLOAT))
    if kind in ("binary_logits", "binary_probs"):
        z = builder.node("Reshape", [z, builder.constant("column", [-1, 1], "int64")], "column_of")
    probs, logits = _head_nodes(builder, z, kind, temperature)
    probs = builder.node("Identity", [probs], builder.free("probs"), final=True)
    outputs = [probs]
    if kind in LOGIT_KINDS:
        logits = builder.node("Identity", [logits], builder.free("logits"), final=True)
        outputs.append(logits)
    rows = builder.batch_axis(raw_output)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, [rows, classes]) for o in outputs
    )
    return probs, logits if kind in LOGIT_KINDS else None


def _head_nodes(b: _Builder, z: str, kind: OutputKind, temperature: float) -> tuple[str, str]:
    """Adds the nodes between the float32 output `z` and the distributions; returns these and the logits."""
    if kind == "binary_probs":
        rest = b.node("Sub", [b.constant("one", 1.0), z], "rest")
        negative = b.node("Greater", [b.constant("zero", 0.0), z], "negative")
        above = b.node("Greater", [z, b.constant("one_", 1.0)], "above")
        pair = b.node("Concat", [rest, z], "pair", axis=1)
        return b.nan_where(b.node("Or", [negative, above], "invalid"), pair), z
    if kind == "probs":
        mass = b.reduce("ReduceSum", z, "mass")
        negative = b.node("Greater", [b.constant("zero", 0.0), b.reduce("ReduceMin", z, "least")], "negative")
        invalid = b.node("Or", [negative, b.far_from_one(mass)], "invalid")
        return b.nan_where(invalid, b.node("Div", [z, mass], "renormalised")), z
    if kind == "binary_logits":
        # Not z · 0, which is NaN for an infinite score.
        zeros = b.node("ConstantOfShape", [b.node("Shape", [z], "shape")], "zeros")
        z = b.node("Concat", [zeros, z], "two_logits", axis=1)
    scaled = z if temperature == 1 else b.node("Div", [z, b.constant("temperature", temperature)], "scaled")
    probs = b.node("Softmax", [scaled], "softmax", axis=1)
    if kind == "log_probs":
        mass = b.reduce("ReduceSum", b.node("Exp", [z], "exp"), "mass")
        probs = b.nan_where(b.far_from_one(mass), probs)
    return probs, z


class _Builder:
    """Adds named nodes and constants to a graph."""

    def __init__(self, model: onnx.ModelProto, opset: int) -> None:
        self._graph = model.graph
        self._opset = opset
        self._taken = {o for n in model.graph.node for o in n.output}
        self._taken |= {v.name for v in model.graph.input} | {t.name for t in model.graph.initializer}

    def free(self, name: str) -> str:
        while name in self._taken:
            name = "fo_onnx_" + name
        return name

    def batch_axis(self, output: str) -> Any:
        value = next(v for v in self._graph.output if v.name == output)
        first = value.type.tensor_type.shape.dim[:1]
        return (first[0].dim_value or first[0].dim_param or "batch") if first else "batch"

    def node(self, op: str, inputs: list[str], name: str, *, final: bool = False, **attributes: Any) -> str:
        import onnx

        output = name if final else NODE_PREFIX + name
        self._graph.node.append(onnx.helper.make_node(op, inputs, [output], NODE_PREFIX + name, **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: str = "float32") -> str:
        import numpy as np
        import onnx

        self._graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), NODE_PREFIX + name))
        return NODE_PREFIX + name

    def reduce(self, op: str, tensor: str, name: str) -> str:
        # Axes became an input with operator set 13 for ReduceSum, and with 18 for the other reductions.
        if self._opset >= (13 if op == "ReduceSum" else 18):
            return self.node(op, [tensor, self.constant(name + "_axes", [1], "int64")], name, keepdims=1)
        return self.node(op, [tensor], name, axes=[1], keepdims=1)

    def far_from_one(self, mass: str) -> str:
        gap = self.node("Abs", [self.node("Sub", [mass, self.constant("unit", 1.0)], "excess")], "gap")
        return self.node("Greater", [gap, self.constant("tolerance", UNIT_SUM_TOLERANCE)], "far")

    def nan_where(self, invalid: str, tensor: str) -> str:
        return self.node("Where", [invalid, self.constant("nan", float("nan")), tensor], "valid_or_nan")
