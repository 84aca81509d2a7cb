"""Isotonic calibration, which skl2onnx gets wrong in the middle of its own converter: replaced during a conversion.

Written for skl2onnx 1.20; a version with other internals is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fo_onnx.errors import ExportError

from .graph import INT64, Graph


@contextmanager
def interpolated_isotonic_curves() -> Iterator[None]:
    """Replace skl2onnx's function, and put it back on leaving. The caller holds the lock on conversions."""
    from skl2onnx.operator_converters import calibrated_classifier_cv as module

    original = getattr(module, "_transform_isotonic", None)
    if original is None:
        import skl2onnx

        raise ExportError(
            f"skl2onnx {skl2onnx.__version__} is not the version that fo-onnx corrects (1.20): it has no _transform_isotonic, whose "
            "curves it takes at the nearest point. Install skl2onnx==1.20.0."
        )
    module._transform_isotonic = _interpolate
    try:
        yield
    finally:
        module._transform_isotonic = original


def _interpolate(scope: Any, container: Any, model: Any, scores: str, k: int, dtype: Any, proto_type: int) -> str:
    """Return an isotonic curve at the scores (n, 1): linear between its points, constant beyond them.

    skl2onnx takes the nearest point. y(x) = y₀ + Σ slopeᵢ · clip(x − xᵢ, 0, xᵢ₊₁ − xᵢ).
    """
    calibrator = model.calibrators[k]
    x, y = np.asarray(calibrator.X_thresholds_, np.float64), np.asarray(calibrator.y_thresholds_, np.float64)
    widths = np.diff(x)
    slopes = np.divide(np.diff(y), widths, out=np.zeros_like(widths), where=widths > 0)
    graph = Graph(scope, None, container)
    column = graph.node("Reshape", [scores, graph.constant([-1, 1], INT64)])
    if len(x) < 2:
        rise = graph.node("Mul", [column, graph.constant(0.0)])
    else:
        above = graph.node("Sub", [column, graph.constant(x[None, :-1])])
        above = graph.node("Max", [above, graph.constant(0.0)])
        within = graph.node("Min", [above, graph.constant(widths[None, :])])
        rise = graph.node("MatMul", [within, graph.constant(slopes[:, None])])
    return graph.node("Add", [rise, graph.constant(y[0])])
