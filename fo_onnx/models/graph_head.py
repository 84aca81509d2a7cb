"""The probability head as ONNX nodes, so that one run of the graph gives distributions.

The head is written in ONNX's text syntax, and its nodes are appended to the protobuf in place: `onnx.compose.merge_models`
reorders outputs and refuses differences of operator set. Its numpy twin is
`fo_onnx.distributions.probabilities.apply_head`; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contracts.spec import LOGIT_KINDS, OutputKind
from ..distributions.probabilities import UNIT_SUM_TOLERANCE
from ..errors import ModelError, OutputError

if TYPE_CHECKING:
    import onnx

NODE_PREFIX = "fo_onnx_head/"
LEAST_OPSET = 9
"""Where, which the head of probabilities needs, came with operator set 9."""

_UNBOUNDED = ("Gemm", "MatMul", "Conv")
_PASS_THROUGH = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze")


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set that `model` imports."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def output_kind_of_graph(model: onnx.ModelProto, raw_output: str) -> OutputKind | None:
    """Return what a graph's output means by its last operator; ``None`` if that does not say.

    Raises:
        OutputError: A Sigmoid over two classes or more: a multi-label model.
    """
    value = next(v for v in model.graph.output if v.name == raw_output)
    shape = value.type.tensor_type.shape.dim
    rank, is_binary = len(shape), len(shape) == 1 or (len(shape) == 2 and shape[1].dim_value == 1)
    node = _last_operator(model, raw_output, (*_PASS_THROUGH, "Clip"))
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
    node = _last_operator(model, raw_output, _PASS_THROUGH)
    if node is not None and node.op_type == "Add":
        weights = {t.name for t in model.graph.initializer}
        computed = [name for name in node.input if name not in weights]
        node = _last_operator(model, computed[0], _PASS_THROUGH) if len(computed) == 1 else None
    return node is not None and node.op_type in _UNBOUNDED


def _last_operator(model: onnx.ModelProto, tensor: str, passing: tuple[str, ...]) -> onnx.NodeProto | None:
    """Return the node of ONNX's own that computes `tensor`, behind those of `passing`, which keep its values in place."""
    producers = {out: node for node in model.graph.node for out in node.output}
    # A node passed twice is one of a loop, which ONNX Runtime refuses.
    while (node := producers.pop(tensor, None)) is not None and node.op_type in passing and node.input:
        tensor = node.input[0]
    return None if node is None or node.domain not in ("", "ai.onnx") else node


def remove(model: onnx.ModelProto, raw_output: onnx.ValueInfoProto) -> None:
    """Take a head that `fuse` added out again, so that `raw_output` is the model's output as before."""
    rest = [n for n in model.graph.node if not n.name.startswith(NODE_PREFIX)]
    constants = [t for t in model.graph.initializer if not t.name.startswith(NODE_PREFIX)]
    del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
    model.graph.node.extend(rest)
    model.graph.initializer.extend(constants)
    model.graph.output.append(raw_output)


def fuse(
    model: onnx.ModelProto, raw_output: str, kind: OutputKind, temperature: float, classes: int
) -> tuple[str, str | None]:
    """Append the head to `model`, in place; the distributions become its first output.

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
    import numpy as np
    import onnx

    opset, graph = opset_of(model), model.graph
    if opset < LEAST_OPSET:
        raise ModelError(
            f"the model is of operator set {opset}; at least {LEAST_OPSET} is needed to add the probability head. "
            "Convert it with onnx.version_converter."
        )
    # What lies between the raw output and the distributions gets a prefix; the names at the ends are the graph's.
    taken = {o for n in graph.node for o in n.output} | {v.name for v in (*graph.input, *graph.initializer)}
    names = {"raw": raw_output}
    outputs = ["probs", "logits"] if kind in LOGIT_KINDS else ["probs"]
    for output in outputs:
        names[output] = output
        while names[output] in taken:
            names[output] = "fo_onnx_" + names[output]
    nodes = onnx.parser.parse_graph(f"head (float[N] raw) => (float[N] probs) {{ {_head_text(kind, opset)} }}").node
    used = {name for node in nodes for name in node.input}
    for node in nodes:
        node.name = NODE_PREFIX + node.output[0]
        node.input[:] = [names.get(name, NODE_PREFIX + name) for name in node.input]
        node.output[:] = [names.get(name, NODE_PREFIX + name) for name in node.output]
        graph.node.append(node)
    floats = {"zero": 0, "one": 1, "nan": np.nan, "temperature": temperature, "tolerance": UNIT_SUM_TOLERANCE}
    constants = {name: np.asarray(value, np.float32) for name, value in floats.items()}
    constants |= {"class_axis": np.array([1]), "column_shape": np.array([-1, 1])}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(value, NODE_PREFIX + name) for name, value in constants.items() if name in used
    )
    # The batch axis keeps its length or its name.
    batch = next(v for v in graph.output if v.name == raw_output).type.tensor_type.shape.dim[:1]
    rows = (batch[0].dim_value or batch[0].dim_param or "batch") if batch else "batch"
    del graph.output[:]
    graph.output.extend(
        onnx.helper.make_tensor_value_info(names[o], onnx.TensorProto.FLOAT, [rows, classes]) for o in outputs
    )
    return names["probs"], names.get("logits")


def _head_text(kind: OutputKind, opset: int) -> str:
    """Return the nodes from ``raw`` to ``probs``, and to ``logits`` if there are any, in ONNX's text syntax."""

    def reduce(op: str, tensor: str, since: int) -> str:
        # From the operator set `since` on axes are an input.
        return (
            f"{op} <keepdims=1> ({tensor}, class_axis)" if opset >= since else f"{op} <axes=[1], keepdims=1> ({tensor})"
        )

    softmax = "scaled = Div (logits, temperature)  softmax = Softmax <axis=1> (scaled)"
    mass = f"""
        mass = {reduce("ReduceSum", "masses", 13)}
        excess = Sub (mass, one)
        gap = Abs (excess)
        is_far_from_one = Greater (gap, tolerance)"""
    # For binary scores not scores · 0, which is NaN for an infinite one.
    nodes: dict[OutputKind, str] = {
        "logits": f"logits = Identity (scores)  {softmax}  probs = Identity (softmax)",
        "log_probs": f"""logits = Identity (scores)  {softmax}  masses = Exp (scores) {mass}
        probs = Where (is_far_from_one, nan, softmax)""",
        "probs": f"""masses = Identity (scores) {mass}
        least = {reduce("ReduceMin", "scores", 18)}
        is_negative = Less (least, zero)
        is_invalid = Or (is_negative, is_far_from_one)
        renormalised = Div (scores, mass)
        probs = Where (is_invalid, nan, renormalised)""",
        "binary_logits": f"""shape = Shape (scores)
        zeros = ConstantOfShape (shape)
        logits = Concat <axis=1> (zeros, scores)
        {softmax}  probs = Identity (softmax)""",
        "binary_probs": """rest = Sub (one, scores)
        is_negative = Less (scores, zero)
        is_above = Greater (scores, one)
        is_invalid = Or (is_negative, is_above)
        pair = Concat <axis=1> (rest, scores)
        probs = Where (is_invalid, nan, pair)""",
    }
    column = "Reshape (raw32, column_shape)" if kind.startswith("binary") else "Identity (raw32)"
    return f"raw32 = Cast <to=1> (raw)  scores = {column}  {nodes[kind]}"
