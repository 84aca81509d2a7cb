"""scikit-learn's fixtures for the exporter contract."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from exporter_framework import ExportCase, Framework
from fo_onnx_sklearn.plugin import SklearnExporter
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


def rows(n: int, seed: int = 1) -> np.ndarray:
    """(n, 6) float64, on a grid, so that values meet thresholds."""
    return np.random.default_rng(seed).integers(-6, 7, (n, 6)) / 3


def labels(x: np.ndarray) -> np.ndarray:
    return (x[:, 0] + x[:, 1] > 0).astype(int) + (x[:, 2] * x[:, 3] > 1)


def fitted(*steps: Any) -> Pipeline:
    x = rows(200, 0)
    return make_pipeline(*steps).fit(x, labels(x))


def forest() -> Pipeline:
    # copy=False lets the scaler work in place, on what must not be changed.
    return fitted(StandardScaler(copy=False), RandomForestClassifier(10, random_state=0))


def linear() -> Pipeline:
    return fitted(StandardScaler(), LogisticRegression())


def doubled(x: np.ndarray) -> np.ndarray:
    return np.asarray(x) * 2


def function_inside() -> Pipeline:
    return fitted(FunctionTransformer(doubled), LogisticRegression())


def answer(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    (x,) = inputs.values()
    return model.predict_proba(x.astype(np.float64))


def change_one_weight(model: Any) -> None:
    last = model.steps[-1][1]
    array = last.coef_ if hasattr(last, "coef_") else last.estimators_[3].tree_.threshold
    array.flat[0] += 1e-6


FRAMEWORK = Framework(
    exporter=SklearnExporter(),
    module="sklearn",
    cases={
        "linear": ExportCase(linear, {"0": rows(9)}),
        "forest": ExportCase(forest, {"0": rows(9)}),
        "float32": ExportCase(linear, {"X": rows(9).astype(np.float32)}),
        "integers": ExportCase(forest, {"0": np.round(rows(9)).astype(np.int64)}),
    },
    unexportable=ExportCase(function_inside, {"0": rows(9)}),
    named_in_the_error="FunctionTransformer",
    wrong_shape={"0": rows(9)[:, :5]},
    answer=answer,
    snapshot=pickle.dumps,
    change_one_weight=change_one_weight,
    native_paths=["predict_proba"],
    remade="from sklearn_framework import linear as make",
)
