"""The outline of an exported graph: its inputs as the data has them, its one output, and rows that are refused.

Changes the protobuf that skl2onnx made, in place; the estimator's own nodes stay as they are.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fo_onnx.errors import ExportError
from fo_onnx.protocols import Array, Inputs
from fo_onnx.spec import TensorSpec

from .graph import REFUSED
from .interfaces import JOINED, MATRIX, OUTPUT
from .native import frame_maker

if TYPE_CHECKING:
    import onnx

PREFIX = "fo_onnx_sklearn/"
MOST_PROBES = 64
"""How often an estimator is asked which of its columns may be missing."""


def finished(proto: onnx.ModelProto, inputs: Inputs, classifier: Any) -> tuple[TensorSpec, ...]:
    """Gives a graph the inputs that the data has, and the distributions as its only output.

    Args:
        proto: What skl2onnx made, with inputs called as in `inputs`.
        inputs: The example.
        classifier: What it was made of.

    Returns:
        The inputs.
    """
    graph = proto.graph
    _keep_probabilities(graph)
    refusable = {k: a for k, a in inputs.items() if a.dtype.kind == "f"}
    allowed = missing_allowed(classifier, inputs) if refusable else {}
    _refuse_rows(graph, refusable, allowed, len(classifier.classes_))
    if any(i.name == JOINED for i in graph.input):
        _join_columns(graph, inputs)
    specs = tuple(_take_as_given(graph, name, array) for name, array in inputs.items())
    _drop_unused(graph)
    _order(graph)
    return specs


def missing_allowed(classifier: Any, inputs: Inputs) -> dict[str, Array]:
    """Which columns may hold NaN, by input, (columns,) bool: scikit-learn is asked, since its tags tell only of whole estimators."""
    one = _sound_row(classifier, inputs)
    places = [(k, c) for k, a in one.items() if a.dtype.kind == "f" for c in range(a.shape[1] if a.ndim == 2 else 1)]
    found = {k: np.zeros(a.shape[1] if a.ndim == 2 else 1, bool) for k, a in one.items() if a.dtype.kind == "f"}
    probes = MOST_PROBES
    waiting = [places]
    while waiting and probes:
        some = waiting.pop()
        probes -= 1
        if _takes_missing(classifier, one, some):
            for k, c in some:
                found[k][c] = True
        elif len(some) > 1:
            waiting += [some[: len(some) // 2], some[len(some) // 2 :]]
    return found


def _sound_row(classifier: Any, inputs: Inputs) -> dict[str, Array]:
    """A row of the example that the estimator takes, with what is missing filled from the other rows; else the first one."""
    filled = {k: _filled(a) if a.dtype.kind == "f" else a for k, a in inputs.items()}
    rows = [{k: a[i : i + 1] for k, a in filled.items()} for i in range(len(next(iter(filled.values()))))]
    return next((row for row in rows if _takes_missing(classifier, row, [])), rows[0])


def _filled(array: Array) -> Array:
    found = array.astype(np.float64)
    columns = found.reshape(len(found), -1)
    for column in columns.T:
        sound = np.isfinite(column)
        column[~sound] = column[sound][0] if sound.any() else 0.0
    return found


def _takes_missing(classifier: Any, one: Inputs, places: list[tuple[str, int]]) -> bool:
    row = {k: a.copy() for k, a in one.items()}
    for k, c in places:
        row[k].reshape(1, -1)[0, c] = np.nan
    if MATRIX in row and row[MATRIX].ndim == 2:
        rows: Any = row[MATRIX].astype(object) if row[MATRIX].dtype.kind == "U" else row[MATRIX]
    else:
        rows = frame_maker()({k: (a.astype(object) if a.dtype.kind == "U" else a).reshape(-1) for k, a in row.items()})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(np.isfinite(classifier.predict_proba(rows)).all())
    except ValueError:
        return False


def _keep_probabilities(graph: onnx.GraphProto) -> None:
    """Takes the outputs away, and casts the tensor of distributions, without the maps around it, to float64.

    skl2onnx has an option against maps (``zipmap``), which classifiers within pipelines within others refuse.
    """
    import onnx

    names = [o.name for o in graph.output]
    if len(names) < 2:
        raise ExportError(f"skl2onnx gave the outputs {names}, and a label and probabilities were expected.")
    name = names[1]
    for node in graph.node:
        if node.op_type == "ZipMap" and node.output[0] == name:
            name = node.input[0]
    graph.node.append(
        onnx.helper.make_node("Cast", [name], [PREFIX + "raw"], PREFIX + "raw", to=onnx.TensorProto.DOUBLE)
    )
    del graph.output[:]


def _refuse_rows(graph: onnx.GraphProto, inputs: Inputs, allowed: dict[str, Array], classes: int) -> None:
    """Makes rows NaN that scikit-learn refuses: with infinity, with NaN where none may be, with a category that is unknown."""
    import onnx

    add = graph.node.append
    make = onnx.helper.make_node
    marks = [o for n in graph.node for o in n.output if o.startswith(REFUSED)]
    for i, name in enumerate(inputs):
        at = f"{PREFIX}check{i}/"
        # 0 · x is NaN for what is not finite, else 0. Where NaN is allowed, it is taken for 0 first.
        add(make("Cast", [name], [at + "x"], at + "cast", to=onnx.TensorProto.DOUBLE))
        add(make("IsNaN", [at + "x"], [at + "nan"], at + "isnan"))
        _initializer(graph, at + "allowed", allowed[name].reshape(1, -1))
        add(make("And", [at + "nan", at + "allowed"], [at + "missing"], at + "and"))
        add(make("Where", [at + "missing", PREFIX + "zero", at + "x"], [at + "checked"], at + "where"))
        add(make("Mul", [at + "checked", PREFIX + "zero"], [at + "marks"], at + "mul"))
        add(make("ReduceSum", [at + "marks", PREFIX + "axis"], [at + "mark"], at + "sum", keepdims=1))
        marks.append(at + "mark")
    _initializer(graph, PREFIX + "zero", np.zeros((), np.float64))
    _initializer(graph, PREFIX + "axis", np.array([1], np.int64))
    add(make("Sum", [PREFIX + "raw", *marks], [OUTPUT], PREFIX + "refuse"))
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.DOUBLE, ["batch", classes]))


def _join_columns(graph: onnx.GraphProto, inputs: Inputs) -> None:
    """Replaces the one matrix by its columns, as inputs (n, 1) of its element type."""
    import onnx

    (matrix,) = graph.input
    kind = matrix.type.tensor_type.elem_type
    del graph.input[:]
    graph.input.extend(onnx.helper.make_tensor_value_info(name, kind, ["batch", 1]) for name in inputs)
    graph.node.append(onnx.helper.make_node("Concat", list(inputs), [JOINED], PREFIX + "columns", axis=1))


def _take_as_given(graph: onnx.GraphProto, name: str, array: Array) -> TensorSpec:
    """Replaces the input `name` by one of the data's dtype and shape, cast and reshaped to what the graph takes."""
    import onnx

    old = next(i for i in graph.input if i.name == name)
    wanted = old.type.tensor_type.elem_type
    inner = f"{PREFIX}input/{name}"
    for node in graph.node:
        for i, used in enumerate(node.input):
            if used == name:
                node.input[i] = inner
    text = array.dtype.kind == "U"
    kind = onnx.TensorProto.STRING if text else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    last = name
    if array.ndim == 1:
        _initializer(graph, inner + "/shape", np.array([-1, 1], np.int64))
        graph.node.append(
            onnx.helper.make_node("Reshape", [name, inner + "/shape"], [inner + "/column"], inner + "/reshape")
        )
        last = inner + "/column"
    op, attributes = ("Identity", {}) if kind == wanted else ("Cast", {"to": wanted})
    graph.node.append(onnx.helper.make_node(op, [last], [inner], inner + "/cast", **attributes))
    new = onnx.helper.make_tensor_value_info(name, kind, ["batch", *array.shape[1:]])
    old.CopyFrom(new)
    return TensorSpec(name, "str" if text else str(array.dtype), (None, *array.shape[1:]))


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes the nodes and constants that the output does not need, such as those of the label."""
    needed = {o.name for o in graph.output}
    producers = {o: n for n in graph.node for o in n.output}
    waiting, kept = list(needed), set()
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or id(node) in kept:
            continue
        kept.add(id(node))
        inner = [i for a in node.attribute if a.HasField("g") for n in a.g.node for i in n.input]
        needed.update((*node.input, *inner))
        waiting += (*node.input, *inner)
    nodes = [n for n in graph.node if id(n) in kept]
    constants = [t for t in graph.initializer if t.name in needed]
    copies = [type(n).FromString(n.SerializeToString()) for n in nodes]
    tensors = [type(t).FromString(t.SerializeToString()) for t in constants]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend(tensors)


def _order(graph: onnx.GraphProto) -> None:
    """Puts every node behind those that it needs, as ONNX demands."""
    known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    made = {o for n in graph.node for o in n.output}
    waiting = [type(n).FromString(n.SerializeToString()) for n in graph.node]
    del graph.node[:]
    while waiting:
        ready = []
        for node in waiting:
            inner = [i for a in node.attribute if a.HasField("g") for n in a.g.node for i in n.input]
            if all(i in known or i not in made for i in (*node.input, *inner)):
                graph.node.append(node)
                known.update(node.output)
                ready.append(node)
        if not ready:
            raise ExportError("skl2onnx made a graph whose nodes need each other in a circle.")
        done = set(map(id, ready))
        waiting = [n for n in waiting if id(n) not in done]


def _initializer(graph: onnx.GraphProto, name: str, values: Array) -> None:
    import onnx

    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
