"""Rows on a grid, where values meet thresholds, and fitted estimators over them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from fo_onnx_sklearn.plugin import SklearnExporter

from fo_onnx.contracts.batch import count_rows
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.errors import RunError
from fo_onnx.runtime.refused_rows import run_without_refused

EXPORTER = SklearnExporter()
COLUMNS = 5


def grid(rows: int, seed: int = 0) -> np.ndarray:
    """(rows, 5) float64: thirds, which float32 does not hold, of few values, so that thresholds are met often."""
    return np.random.default_rng(seed).integers(0, 8, (rows, COLUMNS)) / 3


def classes(x: np.ndarray, count: int = 3) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 0.6, (2, len(x)))
    first = (x[:, 0] + x[:, 1] * x[:, 2] + noise[0] > 2.5).astype(int)
    return first if count == 2 else first + (x[:, 3] + noise[1] > 1.8)


def fit(estimator: Any, x: np.ndarray | None = None, count: int = 3) -> Any:
    x = grid(300) if x is None else x
    with warnings.catch_warnings():
        # On deprecated parameters and unfinished optimisation, which are no matter here.
        warnings.simplefilter("ignore")
        return estimator.fit(x, classes(np.nan_to_num(x, nan=1.0), count))


def exported(estimator: Any, rows: dict[str, np.ndarray]) -> np.ndarray:
    """What the exported file gives for the rows, without a head."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        example = {k: a[:3] for k, a in rows.items()}
        spec = EXPORTER.export(estimator, example, path, ModelOptions(), OutputOptions())
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (probs,) = session.run(None, {i.name: rows[n] for i, n in zip(spec.inputs, _order(spec, rows), strict=True)})
    return probs


def _order(spec: Any, rows: dict[str, np.ndarray]) -> list[str]:
    return [i.name for i in spec.inputs] if len(rows) > 1 else list(rows)


def predicted(estimator: Any, rows: dict[str, np.ndarray]) -> np.ndarray:
    """``predict_proba`` in float64; NaN for rows that the estimator refuses."""
    native = EXPORTER.native(estimator, {k: a[:3] for k, a in rows.items()}, "auto", ModelOptions(), OutputOptions())
    try:
        return native.forward(rows)
    except RunError as err:
        split = run_without_refused(native.forward, rows, err)
    probs = np.full((count_rows(rows), len(estimator.classes_)), np.nan)
    for indices, part in split.parts:
        probs[indices] = part
    return probs


def furthest(estimator: Any, x: np.ndarray) -> float:
    """The largest total variation of a row of the file from ``predict_proba`` in float64; NaN must meet NaN."""
    probs = exported(estimator, {"0": x})
    expected = predicted(estimator, {"0": x})
    assert np.array_equal(np.isnan(probs), np.isnan(expected))
    return float(np.nanmax(np.abs(probs - expected).sum(axis=1)) / 2)
