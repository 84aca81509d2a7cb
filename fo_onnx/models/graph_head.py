"""The probability head as ONNX nodes, so that one run of the graph gives distributions.

The head is written in ONNX's text syntax, and its nodes are appended to the protobuf in place: `onnx.compose.merge_models`
reorders outputs and refuses differences of operator set. Its numpy twin is
`fo_onnx.distributions.probabilities.apply_head`; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contracts.spec import LOGIT_KINDS, OutputKind
from ..distributions.probabilities import UNIT_SUM_TOLERANCE
from ..errors import OutputError

if TYPE_CHECKING:
    import onnx

NODE_PREFIX = "fo_onnx_head/"
LEAST_OPSET = 7
"""The operators of the head take arrays of different shapes from operator set 7 on.

An older model is said to be of this one: ONNX Runtime has no operator of theirs whose meaning changed up to 7, but for the
Reshape of sets 1 to 4, which it then refuses.
"""
_WHERE_OPSET = 9
_NEWEST_FORM = 18
"""From this operator set on the nodes of the head are written alike."""

_UNBOUNDED = ("Gemm", "MatMul", "Conv")
_PASS_THROUGH = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze")


def opset_of(model: onnx.ModelProto) -> int | None:
    """Return the version of the default operator set that `model` imports; ``None`` for none, with which ONNX Runtime takes its newest."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), None)


def output_kind_of_graph(model: onnx.ModelProto, raw_output: str) -> OutputKind | None:
    """Return what a graph's output means by its last operator; ``None`` if that does not say.

    Raises:
        OutputError: A Sigmoid over two classes or more: a multi-label model.
    """
    value = next(v for v in model.graph.output if v.name == raw_output)
    lengths = [d.dim_value for d in value.type.tensor_type.shape.dim]
    rank, is_binary = len(lengths), bool(lengths) and all(d == 1 for d in lengths[1:])
    node = _last_operator(model, raw_output, (*_PASS_THROUGH, "Clip"))
    if node is None:
        return None
    if node.op_type == "Sigmoid":
        if is_binary:
            return "binary_probs"
        if rank != 2 or lengths[1] <= 1:
            # How many scores there are is not written down; a batch will tell.
            return None
        raise OutputError(
            f"the graph ends in a Sigmoid over {lengths[1]} classes: a multi-label model gives no distribution over "
            "classes. Say which it is with output=, or reduce it with output_transform=."
        )
    if node.op_type in ("Softmax", "LogSoftmax") and not is_binary:
        is_last = raw_output in node.output
        if _is_over_classes(node, opset_of(model) or _NEWEST_FORM, lengths, is_last=is_last):
            return "probs" if node.op_type == "Softmax" else "log_probs"
    return None


def _is_over_classes(node: onnx.NodeProto, opset: int, lengths: list[int], *, is_last: bool) -> bool:
    """Return whether a softmax is over the classes of an output whose axes have `lengths`, 0 for an open one."""
    rank, wide = len(lengths), [i for i, length in enumerate(lengths) if i > 0 and length != 1]
    if rank > 2 and len(wide) != 1:
        return False
    class_axis = wide[0] if rank > 2 else rank - 1
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if opset >= 13 else 1)
    if not is_last:
        # A Reshape behind the softmax moves axes, so that only the last axis by its negative name is sure there.
        return (axis == -1 and class_axis == rank - 1) or (rank == 2 and axis == 1)
    if rank > 0 and axis < 0:
        axis += rank
    # Before operator set 13 a softmax is over all axes from its own on.
    return axis == class_axis or (opset < 13 and 0 < axis < class_axis)


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
        raw_output: The output that the head takes, (n, k), or (n,) or (n, 1) for the binary kinds; further axes have
            the length 1.
        kind: What that output means.
        temperature: T of softmax(z / T).
        classes: k of the distributions.

    Returns:
        The name of the output with distributions (n, k) and of the one with logits (n, k), both float32; the second is
        ``None`` where `kind` has no logits. Rows that are no distribution come out as NaN.
    """
    import numpy as np
    import onnx

    graph = model.graph
    for operator_set in model.opset_import:
        if operator_set.domain in ("", "ai.onnx"):
            operator_set.version = max(operator_set.version, LEAST_OPSET)
    opset = opset_of(model) or _NEWEST_FORM
    shape = next(v for v in graph.output if v.name == raw_output).type.tensor_type.shape.dim
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
    constants |= {"class_axis": np.array([1]), "column_shape": np.array([-1, 1]), "row_shape": np.array([-1, classes])}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(value, NODE_PREFIX + name) for name, value in constants.items() if name in used
    )
    # The batch axis keeps its length or its name.
    rows = (shape[0].dim_value or shape[0].dim_param or "batch") if shape else "batch"
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

    def nan_where(condition: str, otherwise: str) -> str:
        if opset >= _WHERE_OPSET:
            return f"probs = Where ({condition}, nan, {otherwise})"
        return f"""is_valid = Not ({condition})
        valid = Cast <to=1> (is_valid)
        zero_or_nan = Div (zero, valid)
        probs = Add ({otherwise}, zero_or_nan)"""

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
        {nan_where("is_far_from_one", "softmax")}""",
        "probs": f"""masses = Identity (scores) {mass}
        least = {reduce("ReduceMin", "scores", 18)}
        is_negative = Less (least, zero)
        is_invalid = Or (is_negative, is_far_from_one)
        renormalised = Div (scores, mass)
        {nan_where("is_invalid", "renormalised")}""",
        "binary_logits": f"""is_never = Less (scores, scores)
        zeros = Cast <to=1> (is_never)
        logits = Concat <axis=1> (zeros, scores)
        {softmax}  probs = Identity (softmax)""",
        "binary_probs": f"""rest = Sub (one, scores)
        is_negative = Less (scores, zero)
        is_above = Greater (scores, one)
        is_invalid = Or (is_negative, is_above)
        pair = Concat <axis=1> (rest, scores)
        {nan_where("is_invalid", "pair")}""",
    }
    # Axes of one are dropped; graphs that squeeze their output lose the batch axis too, if there is one row.
    shape = "column_shape" if kind.startswith("binary") else "row_shape"
    return f"raw32 = Cast <to=1> (raw)  scores = Reshape (raw32, {shape})  {nodes[kind]}"
