"""What skl2onnx gets wrong in the middle of its own converters: replaced for the time of a conversion.

Written for skl2onnx 1.20; where its internals are others a conversion that needs the replacement is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fo_onnx.errors import ExportError


@contextmanager
def patched() -> Iterator[None]:
    """Puts the replacements in their places, and back on leaving. The caller holds the lock on conversions."""
    from skl2onnx.operator_converters import calibrated_classifier_cv as module

    original = getattr(module, "_transform_isotonic", None)
    if original is None:
        import skl2onnx

        raise ExportError(
            f"skl2onnx {skl2onnx.__version__} is not the version that fo-onnx corrects (1.20): it has no _transform_isotonic, whose "
            "curves it takes at the nearest point. Install skl2onnx==1.20.0."
        )
    module._transform_isotonic = _interpolated
    try:
        yield
    finally:
        module._transform_isotonic = original


def _interpolated(scope: Any, container: Any, model: Any, scores: str, k: int, dtype: Any, proto_type: int) -> str:
    """An isotonic curve at the scores (n, 1): linear between its points, constant beyond them.

    skl2onnx takes the point that is nearest. y(x) = y₀ + Σ slopeᵢ · clip(x − xᵢ, 0, xᵢ₊₁ − xᵢ).
    """
    calibrator = model.calibrators[k]
    x, y = np.asarray(calibrator.X_thresholds_, np.float64), np.asarray(calibrator.y_thresholds_, np.float64)
    widths = np.diff(x)
    slopes = np.divide(np.diff(y), widths, out=np.zeros_like(widths), where=widths > 0)
    kind = 11 if dtype == np.float64 else 1

    def constant(values: Any) -> str:
        name = str(scope.get_unique_variable_name("isotonic"))
        array = np.asarray(values, np.float64)
        container.add_initializer(name, kind, list(array.shape), array.ravel().tolist())
        return name

    def node(op: str, *inputs: str) -> str:
        output = str(scope.get_unique_variable_name(op.lower()))
        container.add_node(op, list(inputs), [output], name=scope.get_unique_operator_name(op))
        return output

    shape = str(scope.get_unique_variable_name("shape"))
    container.add_initializer(shape, 7, [2], [-1, 1])
    column = node("Reshape", scores, shape)
    if len(x) < 2:
        return node("Add", node("Mul", column, constant(0.0)), constant(y[0]))
    within = node(
        "Min", node("Max", node("Sub", column, constant(x[None, :-1])), constant(0.0)), constant(widths[None, :])
    )
    return node("Add", node("MatMul", within, constant(slopes[:, None])), constant(y[0]))
