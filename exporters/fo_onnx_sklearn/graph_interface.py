"""The interface of an exported graph: its inputs as the data has them, its one output, and NaN for rows that are refused.

The nodes that skl2onnx wrote for the estimator stay as they are; others come before and behind them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, RunError

from .converters.graph import REFUSED
from .native import SklearnModel

if TYPE_CHECKING:
    import onnx

PREFIX = "fo_onnx_sklearn/"
MOST_PROBES = 64
"""The most rows that an estimator is asked to predict in order to find the columns that may be missing."""


def set_interface(proto: onnx.ModelProto, inputs: Inputs, native: SklearnModel) -> onnx.ModelProto:
    """Return a model with the inputs of the data, and the distributions as its only output.

    Args:
        proto: The model from skl2onnx: it takes each input as (n, columns), or all of them side by side as one matrix.
        inputs: The example.
        native: The estimator that it was made of.
    """
    import onnx

    # Then none of the names within is one of the data's.
    proto = onnx.compose.add_prefix(proto, PREFIX)
    columns = _take_inputs(proto.graph, inputs)
    allowed = {
        op: {columns[n]: a for n, a in columns_that_take(native, inputs, values).items()}
        for op, values in (("IsNaN", (np.nan,)), ("IsInf", (np.inf, -np.inf)))
    }
    _give_probabilities(proto.graph, allowed, native.spec.output)
    # Leaves out what the output does not need, such as the nodes of the label.
    model: onnx.ModelProto = onnx.utils.Extractor(proto).extract_model(list(inputs), [native.spec.output.name])
    del model.graph.value_info[:]
    return model


# Which columns may hold NaN and infinity --------------------------------------------------------------------------


def columns_that_take(native: SklearnModel, inputs: Inputs, values: Sequence[float]) -> dict[str, Array]:
    """Return which columns may hold each of `values`, NaN or infinity, by input, (columns,) bool.

    The estimator is asked by trying, since scikit-learn's tags speak of whole estimators only: all columns at once, and of
    those that are refused each half, if it takes them apart.
    """
    filled = {k: _fill(a) if a.dtype.kind == "f" else a for k, a in inputs.items()}
    allowed = {k: np.zeros(a[0].size, bool) for k, a in filled.items() if a.dtype.kind == "f"}
    if not allowed:
        return {}
    first = int(np.argmax(_is_taken(native, filled)))
    one = {k: a[first : first + 1] for k, a in filled.items()}
    # Groups of places, by input and column, that are still to be tried.
    waiting = [[(k, column) for k, columns in allowed.items() for column in range(len(columns))]]
    for _ in range(MOST_PROBES):
        if not waiting:
            break
        places = waiting.pop()
        if all(_is_taken(native, _put(one, places, value)).all() for value in values):
            for k, column in places:
                allowed[k][column] = True
        elif len(places) > 1 and native.takes_columns_apart:
            half = len(places) // 2
            waiting += [places[:half], places[half:]]
    return allowed


def _put(row: Inputs, places: Sequence[tuple[str, int]], value: float) -> dict[str, Array]:
    row = {k: a.copy() for k, a in row.items()}
    for k, column in places:
        row[k].reshape(1, -1)[0, column] = value
    return row


def _fill(array: Array) -> Array:
    """Return an array in float64 in which each column's first finite value stands for what is not finite."""
    filled = array.astype(np.float64)
    for column in filled.reshape(len(filled), -1).T:
        finite = np.isfinite(column)
        column[~finite] = column[finite][0] if finite.any() else 0.0
    return filled


def _is_taken(native: SklearnModel, inputs: Inputs) -> Array:
    """Return which rows the estimator takes, (n,) bool."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(np.isfinite(native.forward(inputs)).all(axis=1))
    except RunError:
        return np.zeros(1, bool)


# The inputs and the output ---------------------------------------------------------------------------------------


def _take_inputs(graph: onnx.GraphProto, inputs: Inputs) -> dict[str, str]:
    """Replace the inputs of a graph by those of the data.

    Returns:
        By input, the tensor (n, columns) that it becomes: text, or float64.
    """
    import onnx

    taken = [(value.name, value.type.tensor_type.elem_type) for value in graph.input]
    joined = len(taken) == 1 < len(inputs)
    tensors = {n: f"{PREFIX}column{i}" if joined else taken[i][0] for i, n in enumerate(inputs)}
    column_shape = _add_constant(graph, "column_shape", np.array([-1, 1]))
    before, own = [], list(graph.node)
    del graph.input[:], graph.node[:]
    for i, (name, array) in enumerate(inputs.items()):
        text, wanted = array.dtype.kind == "U", taken[0 if joined else i][1]
        kind = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, ["batch", *array.shape[1:]]))
        column = name
        if array.ndim == 1:
            column = f"{tensors[name]}/column"
            before.append(onnx.helper.make_node("Reshape", [name, column_shape], [column]))
        op, attributes = ("Identity", {}) if kind == wanted else ("Cast", {"to": wanted})
        before.append(onnx.helper.make_node(op, [column], [tensors[name]], **attributes))
    if joined:
        before.append(onnx.helper.make_node("Concat", list(tensors.values()), [taken[0][0]], axis=1))
    graph.node.extend([*before, *own])
    return tensors


def _give_probabilities(graph: onnx.GraphProto, allowed: dict[str, dict[str, Array]], output: TensorSpec) -> None:
    """Replace the outputs by the distributions in float64, with NaN for rows that scikit-learn refuses.

    These are rows with NaN or infinity in columns that may hold none, and what a converter refuses, such as an unknown category.
    `allowed` says by operator (``IsNaN``, ``IsInf``) and tensor which columns may hold such a value.
    """
    import onnx

    if len(graph.output) < 2:
        raise ExportError(
            f"skl2onnx gave the outputs {[o.name for o in graph.output]}, and a label and probabilities were expected."
        )
    # Without the map around them: skl2onnx's option against maps is refused by classifiers in pipelines within others.
    maps = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    raw = maps.get(graph.output[1].name, graph.output[1].name)
    marks = [o for n in graph.node for o in n.output if o.startswith(PREFIX + REFUSED)]

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(onnx.helper.make_node(op, inputs, [output], **attributes))
        return output

    zero = _add_constant(graph, "zero", np.zeros(()))
    axis = _add_constant(graph, "axis", np.array([1]))
    for x in allowed["IsNaN"]:
        # 0 · x is NaN for what is not finite, else 0. What is allowed becomes 0 first.
        checked = x
        for op, columns in ((op, by_tensor[x]) for op, by_tensor in allowed.items()):
            if columns.any():
                may_be = _add_constant(graph, f"{x}/{op}/allowed", columns.reshape(1, -1))
                there = add("And", [add(op, [x], f"{x}/{op}"), may_be], f"{x}/{op}/taken")
                checked = add("Where", [there, zero, checked], f"{x}/{op}/checked")
        products = add("Mul", [checked, zero], f"{x}/products")
        marks.append(add("ReduceSum", [products, axis], f"{x}/mark", keepdims=1))
    probs = add("Cast", [raw], PREFIX + "raw", to=onnx.TensorProto.DOUBLE)
    add("Sum", [probs, *marks], output.name)
    del graph.output[:]
    graph.output.append(
        onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.DOUBLE, ["batch", output.shape[1]])
    )


def _add_constant(graph: onnx.GraphProto, name: str, values: Array) -> str:
    import onnx

    name = f"{PREFIX}interface/{name}"
    graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return name
