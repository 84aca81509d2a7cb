"""Calibrated classifiers: curves over the scores of each fold's classifier, as scikit-learn computes them.

skl2onnx 1.20 takes an isotonic curve at the nearest point, and compares a sum of probabilities with 0 after it was rounded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import DOUBLE, FLOAT, INT64, Graph

NO_SUM = 1e-9
"""Isotonic curves are 0 up to a score that many rows have exactly. Its last bits, which differ in ONNX, must not count."""


def calibrated(graph: Graph, estimator: Any) -> str:
    """Write the mean of the folds' calibrated distributions, (n, classes)."""
    parts = [_fold(graph, fold) for fold in estimator.calibrated_classifiers_]
    return graph.node("Mul", [graph.node("Sum", parts), graph.constant(1 / len(parts))])


def _fold(graph: Graph, fold: Any) -> str:
    if fold.method not in ("sigmoid", "isotonic"):
        raise NotImplementedError(f"CalibratedClassifierCV with method={fold.method!r} has no converter")
    count = len(fold.classes)
    if len(fold.estimator.classes_) < count:
        raise NotImplementedError("CalibratedClassifierCV has a fold that has not seen every class")
    scores = graph.member(fold.estimator, raw_scores=hasattr(fold.estimator, "decision_function"))
    places = [1] if count == 2 else range(count)
    columns = [
        _curve(graph, calibrator, graph.node("Gather", [scores, graph.constant([place], INT64)], axis=1))
        for place, calibrator in zip(places, fold.calibrators, strict=True)
    ]
    if count == 2:
        return graph.node("Concat", [graph.node("Sub", [graph.constant(1.0), columns[0]]), columns[0]], axis=1)
    # A row that every curve gives 0 is uniform. A sigmoid is 0 by underflow only, so that any other sum counts.
    probs = graph.node("Concat", columns, axis=1)
    total = graph.node("ReduceSum", [probs, graph.constant([1], INT64)], keepdims=1)
    least = graph.constant(NO_SUM if fold.method == "isotonic" else 0.0)
    empty = graph.node("LessOrEqual", [total, least])
    return graph.node(
        "Where", [empty, graph.constant(np.full((1, count), 1 / count)), graph.node("Div", [probs, total])]
    )


def _curve(graph: Graph, calibrator: Any, scores: str) -> str:
    """Write a calibrator's curve at the scores (n, 1)."""
    if hasattr(calibrator, "a_"):
        # ONNX Runtime's Sigmoid is 0 from −37 on, where the shares of small numbers still count.
        scaled = graph.node("Mul", [scores, graph.constant(float(calibrator.a_))])
        exponential = graph.node("Exp", [graph.node("Add", [scaled, graph.constant(float(calibrator.b_))])])
        return graph.node("Reciprocal", [graph.node("Add", [exponential, graph.constant(1.0)])])
    # Between two points y = yᵢ + slopeᵢ · (x − xᵢ), as numpy.interp has it; i is found by counting the points up to x.
    graph.refuse_infinity(scores, 1)
    points = np.asarray(calibrator.X_thresholds_)
    if points.dtype == np.float32:
        scores = graph.cast(graph.cast(scores, FLOAT), DOUBLE)
    x, y = points.astype(np.float64), np.asarray(calibrator.y_thresholds_, np.float64)
    slopes = np.append(np.diff(y) / np.diff(x), 0.0)
    scores = graph.node("Max", [graph.node("Min", [scores, graph.constant(x[-1])]), graph.constant(x[0])])
    passed = graph.cast(graph.node("GreaterOrEqual", [scores, graph.constant(x[None, 1:])]), INT64)
    place = graph.node("ReduceSum", [passed, graph.constant([1], INT64)], keepdims=1)
    x_i, y_i, slope = (graph.node("Gather", [graph.constant(values), place]) for values in (x, y, slopes))
    return graph.node("Add", [y_i, graph.node("Mul", [slope, graph.node("Sub", [scores, x_i])])])
