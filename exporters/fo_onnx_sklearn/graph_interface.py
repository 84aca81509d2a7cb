"""The interface of an exported graph: its inputs as the data has them, its one output, and NaN for rows that are refused.

Changes the protobuf that skl2onnx made, in place; the estimator's own nodes stay as they are.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, RunError

from .classifier import JOINED, OUTPUT
from .converters.graph import REFUSED
from .native import SklearnModel

if TYPE_CHECKING:
    import onnx

PREFIX = "fo_onnx_sklearn/"
MOST_PROBES = 64
"""The most rows that an estimator is asked to predict in order to find the columns that may be missing."""


def set_interface(proto: onnx.ModelProto, inputs: Inputs, native: SklearnModel) -> tuple[TensorSpec, ...]:
    """Change a graph so that it has the inputs of the data, and the distributions as its only output.

    Args:
        proto: The model from skl2onnx, with inputs called as in `inputs`.
        inputs: The example.
        native: The estimator that it was made of.

    Returns:
        The inputs.
    """
    graph = proto.graph
    raw = _probabilities_of(graph)
    # Nodes behind the estimator's.
    allowed = missing_allowed(native, inputs) if any(a.dtype.kind == "f" for a in inputs.values()) else {}
    _refuse_rows(graph, raw, allowed, native.spec.output.shape[1])
    # Nodes before the estimator's, the last ones first.
    if any(i.name == JOINED for i in graph.input):
        _join_columns(graph, inputs)
    specs = tuple(_take_as_given(graph, name, array) for name, array in inputs.items())
    _drop_unused(graph)
    return specs


# Which columns may hold NaN --------------------------------------------------------------------------------------


def missing_allowed(native: SklearnModel, inputs: Inputs) -> dict[str, Array]:
    """Return which columns may hold NaN, by input, (columns,) bool.

    The estimator is asked by trying, since scikit-learn's tags speak of whole estimators only: all columns at once, and of
    those that are refused each half.
    """
    one = _sound_row(native, inputs)
    # Groups of places, by input and column, that are still to be tried.
    allowed = {k: np.zeros(a[0].size, bool) for k, a in one.items() if a.dtype.kind == "f"}
    waiting = [[(k, column) for k, columns in allowed.items() for column in range(len(columns))]]
    for _ in range(MOST_PROBES):
        if not waiting:
            break
        places = waiting.pop()
        if _takes_missing(native, one, places):
            for k, column in places:
                allowed[k][column] = True
        elif len(places) > 1:
            half = len(places) // 2
            waiting += [places[:half], places[half:]]
    return allowed


def _sound_row(native: SklearnModel, inputs: Inputs) -> dict[str, Array]:
    """Return a row of the example that the estimator takes, with NaN filled from the other rows; else the first one."""
    filled = {k: _fill(a) if a.dtype.kind == "f" else a for k, a in inputs.items()}
    rows = [{k: a[i : i + 1] for k, a in filled.items()} for i in range(len(next(iter(filled.values()))))]
    return next((row for row in rows if _takes_missing(native, row, [])), rows[0])


def _fill(array: Array) -> Array:
    filled = array.astype(np.float64)
    for column in filled.reshape(len(filled), -1).T:
        finite = np.isfinite(column)
        column[~finite] = column[finite][0] if finite.any() else 0.0
    return filled


def _takes_missing(native: SklearnModel, one: Inputs, places: list[tuple[str, int]]) -> bool:
    """Return whether the estimator takes one row with NaN in these places, by input and column."""
    row = {k: a.copy() for k, a in one.items()}
    for k, column in places:
        row[k].reshape(1, -1)[0, column] = np.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(np.isfinite(native.forward(row)).all())
    except RunError:
        return False


# The output ------------------------------------------------------------------------------------------------------


def _probabilities_of(graph: onnx.GraphProto) -> str:
    """Take the outputs away, and return the tensor of distributions, without the maps around it.

    skl2onnx has an option against maps (``zipmap``), which classifiers within pipelines within others refuse.
    """
    names: list[str] = [o.name for o in graph.output]
    if len(names) < 2:
        raise ExportError(f"skl2onnx gave the outputs {names}, and a label and probabilities were expected.")
    del graph.output[:]
    maps: dict[str, str] = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    return maps.get(names[1], names[1])


def _refuse_rows(graph: onnx.GraphProto, raw: str, allowed: dict[str, Array], classes: int | None) -> None:
    """Add the output: `raw` in float64, but NaN for rows that scikit-learn refuses.

    These are rows with infinity, with NaN in columns that may hold none, or with a category that is unknown.
    """
    import onnx

    marks = [o for n in graph.node for o in n.output if o.startswith(REFUSED)]

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(onnx.helper.make_node(op, inputs, [output], PREFIX + f"node{len(graph.node)}", **attributes))
        return output

    zero = _add_constant(graph, PREFIX + "zero", np.zeros((), np.float64))
    axis = _add_constant(graph, PREFIX + "axis", np.array([1], np.int64))
    for i, (name, columns) in enumerate(allowed.items()):
        at = f"{PREFIX}check{i}/"
        # 0 · x is NaN for what is not finite, else 0. NaN that is allowed becomes 0 first.
        x = add("Cast", [name], at + "x", to=onnx.TensorProto.DOUBLE)
        may_miss = _add_constant(graph, at + "allowed", columns.reshape(1, -1))
        missing = add("And", [add("IsNaN", [x], at + "nan"), may_miss], at + "missing")
        checked = add("Where", [missing, zero, x], at + "checked")
        products = add("Mul", [checked, zero], at + "products")
        marks.append(add("ReduceSum", [products, axis], at + "mark", keepdims=1))
    probs = add("Cast", [raw], PREFIX + "raw", to=onnx.TensorProto.DOUBLE)
    add("Sum", [probs, *marks], OUTPUT)
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, ["batch", classes]))


# The inputs ------------------------------------------------------------------------------------------------------


def _join_columns(graph: onnx.GraphProto, inputs: Inputs) -> None:
    """Replace the one matrix by its columns, as inputs (n, 1) of its element type."""
    import onnx

    (matrix,) = graph.input
    kind = matrix.type.tensor_type.elem_type
    del graph.input[:]
    graph.input.extend(onnx.helper.make_tensor_value_info(name, kind, ["batch", 1]) for name in inputs)
    graph.node.insert(0, onnx.helper.make_node("Concat", list(inputs), [JOINED], PREFIX + "columns", axis=1))


def _take_as_given(graph: onnx.GraphProto, name: str, array: Array) -> TensorSpec:
    """Replace the input `name` by one of the data's dtype and shape, reshaped and cast to what the graph takes."""
    import onnx

    inner = f"{PREFIX}input/{name}"
    for node in graph.node:
        for i, used in enumerate(node.input):
            if used == name:
                node.input[i] = inner
    value = next(i for i in graph.input if i.name == name)
    wanted = value.type.tensor_type.elem_type
    text = array.dtype.kind == "U"
    kind = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    column = f"{inner}/column" if array.ndim == 1 else name
    op, attributes = ("Identity", {}) if kind == wanted else ("Cast", {"to": wanted})
    graph.node.insert(0, onnx.helper.make_node(op, [column], [inner], inner + "/cast", **attributes))
    if array.ndim == 1:
        shape = _add_constant(graph, inner + "/shape", np.array([-1, 1], np.int64))
        graph.node.insert(0, onnx.helper.make_node("Reshape", [name, shape], [column], inner + "/reshape"))
    value.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, ["batch", *array.shape[1:]]))
    return TensorSpec(name, "str" if text else str(array.dtype), (None, *array.shape[1:]))


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that the output does not need, such as those of the label; nodes are in order."""
    needed = {o.name for o in graph.output}
    for i in reversed(range(len(graph.node))):
        node = graph.node[i]
        if needed.isdisjoint(node.output):
            del graph.node[i]
            continue
        inner = [name for a in node.attribute if a.HasField("g") for n in a.g.node for name in n.input]
        needed.update((*node.input, *inner))
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in needed:
            del graph.initializer[i]
    del graph.value_info[:]


def _add_constant(graph: onnx.GraphProto, name: str, values: Array) -> str:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return name
