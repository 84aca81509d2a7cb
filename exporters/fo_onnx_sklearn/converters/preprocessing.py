"""Converters of transformers for skl2onnx in place of its own, where those compute in float32 or refuse float64.

A threshold behind them decides as in scikit-learn only if they give the same numbers, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import DOUBLE, INT64, Converter, Graph


def preprocessing_converters() -> dict[type, Converter]:
    """Return converters by class of transformer."""
    from sklearn import impute, preprocessing

    return {
        impute.SimpleImputer: _imputer,
        preprocessing.Binarizer: _converter(_binarizer),
        preprocessing.KBinsDiscretizer: _converter(_bins),
        preprocessing.Normalizer: _converter(_normalizer),
        preprocessing.OneHotEncoder: _converter(_one_hot),
        preprocessing.OrdinalEncoder: _converter(_ordinal),
        preprocessing.PolynomialFeatures: _converter(_polynomial),
    }


def _converter(write: Callable[[Graph, Any], str]) -> Converter:
    """Return a converter that writes the transformed rows (n, features) by `write`."""

    def convert(scope: Any, operator: Any, container: Any) -> None:
        graph = Graph(scope, operator, container)
        graph.give(write(graph, operator.raw_operator))

    return convert


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    # skl2onnx's imputer of numbers computes in float32, whatever it is given.
    from skl2onnx.common._registration import get_converter
    from skl2onnx.common.data_types import StringTensorType

    estimator = operator.raw_operator
    if any(isinstance(i.type, StringTensorType) for i in operator.inputs):
        get_converter(operator.type)(scope, operator, container)
        return
    fill = np.asarray(estimator.statistics_, np.float64)
    if estimator.add_indicator or np.isnan(fill).any():
        raise NotImplementedError(
            "SimpleImputer with add_indicator, or with a column that was empty when it was fitted"
        )
    graph = Graph(scope, operator, container)
    rows, missing = graph.rows(), estimator.missing_values
    nan = isinstance(missing, float) and np.isnan(missing)
    empty = graph.node("IsNaN", [rows]) if nan else graph.node("Equal", [rows, graph.constant(float(missing))])
    graph.give(graph.node("Where", [empty, graph.constant(fill.reshape(1, -1)), rows]))


def _binarizer(graph: Graph, estimator: Any) -> str:
    return graph.cast(graph.node("Greater", [graph.rows(), graph.constant(float(estimator.threshold))]), DOUBLE)


def _bins(graph: Graph, estimator: Any) -> str:
    """Write the number of inner edges that are not above a value, as ``searchsorted(side="right")`` counts them."""
    columns = []
    for (column, _), edges, count in zip(graph.columns(), estimator.bin_edges_, estimator.n_bins_, strict=True):
        inner = np.asarray(edges, np.float64)[1:-1].reshape(1, -1)
        passed = graph.cast(graph.node("GreaterOrEqual", [column, graph.constant(inner)]), DOUBLE)
        number = graph.node("ReduceSum", [passed, graph.constant([1], INT64)], keepdims=1)
        if estimator.encode != "ordinal":
            places = graph.constant(np.arange(count, dtype=np.float64).reshape(1, -1))
            number = graph.cast(graph.node("Equal", [number, places]), DOUBLE)
        columns.append(number)
    return graph.node("Concat", columns, axis=1)


def _normalizer(graph: Graph, estimator: Any) -> str:
    rows, axis = graph.rows(), graph.constant([1], INT64)
    op = {"l1": "ReduceL1", "l2": "ReduceL2", "max": "ReduceMax"}[estimator.norm]
    length = graph.node(op, [graph.node("Abs", [rows]), axis], keepdims=1)
    # A row of zeros, or close to it, stays one.
    zero = graph.node("Less", [length, graph.constant(10 * np.finfo(np.float64).eps)])
    return graph.node("Div", [rows, graph.node("Where", [zero, graph.constant(1.0), length])])


def _polynomial(graph: Graph, estimator: Any) -> str:
    """Write products of columns, multiplied from the last factor to the first, as scikit-learn builds them up."""
    rows, count = graph.rows(), estimator.n_features_in_
    first = graph.node("Gather", [rows, graph.constant([0], INT64)], axis=1)
    first = graph.node("Mul", [first, graph.constant(0.0)])
    padded = graph.node("Concat", [rows, graph.node("Add", [first, graph.constant(1.0)])], axis=1)
    factors = [np.repeat(np.arange(count), powers) for powers in estimator.powers_]
    product: str | None = None
    for place in range(max(map(len, factors)), 0, -1):
        chosen = [int(f[place - 1]) if len(f) >= place else count for f in factors]
        part = graph.node("Gather", [padded, graph.constant(chosen, INT64)], axis=1)
        product = part if product is None else graph.node("Mul", [part, product])
    assert product is not None
    return product


def _one_hot(graph: Graph, estimator: Any) -> str:
    dropped = estimator.drop_idx_ if estimator.drop_idx_ is not None else [None] * len(estimator.categories_)
    columns = []
    for i, matches in enumerate(_matches(graph, estimator)):
        places = [j for j in range(len(estimator.categories_[i])) if j != dropped[i]]
        if places:
            columns.append(graph.node("Gather", [matches, graph.constant(places, INT64)], axis=1))
    return graph.node("Concat", columns, axis=1)


def _ordinal(graph: Graph, estimator: Any) -> str:
    if any(c is None or c != c for categories in estimator.categories_ for c in categories):
        raise NotImplementedError("OrdinalEncoder with missing values among its categories")
    columns = []
    for matches, categories in zip(_matches(graph, estimator), estimator.categories_, strict=True):
        numbers = graph.constant(np.arange(len(categories), dtype=np.float64).reshape(-1, 1))
        number = graph.node("MatMul", [matches, numbers])
        if estimator.handle_unknown == "use_encoded_value":
            known = graph.node("Greater", [_count_matches(graph, matches), graph.constant(0.0)])
            number = graph.node("Where", [known, number, graph.constant(float(estimator.unknown_value))])
        columns.append(number)
    return graph.node("Concat", columns, axis=1)


def _matches(graph: Graph, estimator: Any) -> list[str]:
    """Return for each column which of its categories a row has, (n, categories) in float64; refuse unknown ones on demand."""
    if any(indices is not None for indices in getattr(estimator, "_infrequent_indices", ())):
        raise NotImplementedError(f"{type(estimator).__name__} with a group of infrequent categories")
    columns = []
    for (column, text), categories in zip(graph.columns(), estimator.categories_, strict=True):
        matches = graph.cast(_equal(graph, column, text, np.asarray(categories)), DOUBLE)
        if estimator.handle_unknown == "error":
            graph.refuse_unless(_count_matches(graph, matches))
        columns.append(matches)
    return columns


def _equal(graph: Graph, column: str, text: bool, categories: NDArray[Any]) -> str:
    if text:
        if any(not isinstance(c, str) for c in categories):
            raise NotImplementedError("an encoder of text with missing values among its categories")
        # ONNX compares text from operator set 19 on only; numbering it works in all.
        places = list(range(len(categories)))
        keys = [str(c) for c in categories]
        numbers = graph.node(
            "LabelEncoder", [column], domain="ai.onnx.ml", op_version=2,
            keys_strings=keys, values_int64s=places, default_int64=-1,
        )  # fmt: skip
        return graph.node("Equal", [numbers, graph.constant([places], INT64)])
    if categories.dtype.kind not in "biuf":
        raise NotImplementedError("an encoder of numbers that was fitted on objects")
    values = categories.astype(np.float64).reshape(1, -1)
    same = graph.node("Equal", [column, graph.constant(np.where(np.isnan(values), np.inf, values))])
    if not np.isnan(values).any():
        return same
    # NaN is a category of its own, and equal to nothing.
    missing = graph.node("And", [graph.node("IsNaN", [column]), graph.constant(np.isnan(values).astype(int), 9)])
    return graph.node("Or", [same, missing])


def _count_matches(graph: Graph, matches: str) -> str:
    return graph.node("ReduceSum", [matches, graph.constant([1], INT64)], keepdims=1)
