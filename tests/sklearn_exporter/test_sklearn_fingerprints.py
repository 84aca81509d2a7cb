"""Two estimators have one fingerprint if, and only if, they compute the same."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, pipeline, preprocessing, svm, tree
from sklearn.calibration import CalibratedClassifierCV
from sklearn_rows import EXPORTER, fit, grid

MODELS: dict[str, Callable[[], Any]] = {
    "tree": lambda: tree.DecisionTreeClassifier(random_state=0),
    "forest": lambda: ensemble.RandomForestClassifier(4, random_state=0),
    "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=3, random_state=0),
    "hist": lambda: ensemble.HistGradientBoostingClassifier(max_iter=3, random_state=0),
    "pipeline": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
    "calibrated": lambda: CalibratedClassifierCV(naive_bayes.GaussianNB(), method="isotonic", cv=2),
    "neighbours": lambda: neighbors.KNeighborsClassifier(algorithm="kd_tree"),
    "mlp": lambda: neural_network.MLPClassifier((4,), max_iter=5, random_state=0),
    "svc": lambda: svm.SVC(probability=True, random_state=0),
}


def shift(array: np.ndarray) -> None:
    array.flat[0] = np.nextafter(array.flat[0], np.inf)


def trees_threshold(model: Any) -> None:
    shift(model.tree_.threshold)


CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "threshold": ("tree", trees_threshold),
    "leaf": ("tree", lambda m: shift(m.tree_.value)),
    "forest's threshold": ("forest", lambda m: trees_threshold(m.estimators_[2])),
    "classes": ("tree", lambda m: setattr(m, "classes_", np.array([0, 1, 3]))),
    "learning rate": ("boosting", lambda m: setattr(m, "learning_rate", 0.11)),
    "hist's leaf": ("hist", lambda m: shift(m._predictors[1][0].nodes["value"])),
    "hist's start": ("hist", lambda m: shift(m._baseline_prediction)),
    "scale": ("pipeline", lambda m: shift(m[0].scale_)),
    "intercept": ("pipeline", lambda m: shift(m[1].intercept_)),
    "with_mean": ("pipeline", lambda m: setattr(m[0], "with_mean", False)),
    "a step left out": ("pipeline", lambda m: m.steps.pop(0)),
    "curve": ("calibrated", lambda m: shift(m.calibrated_classifiers_[1].calibrators[0].y_thresholds_)),
    "variance": ("calibrated", lambda m: shift(m.calibrated_classifiers_[0].estimator.var_)),
    "neighbours": ("neighbours", lambda m: setattr(m, "n_neighbors", 4)),
    "a row of the fit": ("neighbours", lambda m: shift(m._fit_X)),
    "weight": ("mlp", lambda m: shift(m.coefs_[1])),
    "activation": ("mlp", lambda m: setattr(m, "activation", "tanh")),
    "support vector": ("svc", lambda m: shift(m.support_vectors_)),
    "gamma": ("svc", lambda m: setattr(m, "_gamma", m._gamma * 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_equal_estimators(name: str) -> None:
    model = fit(MODELS[name]())
    known = EXPORTER.fingerprint(model)

    assert EXPORTER.fingerprint(fit(MODELS[name]())) == known
    assert EXPORTER.fingerprint(pickle.loads(pickle.dumps(model))) == known
    model.predict_proba(grid(20))
    assert EXPORTER.fingerprint(model) == known
    assert EXPORTER.fingerprint(model.predict_proba) == known


@pytest.mark.parametrize("change", CHANGES)
def test_changed_estimators(change: str) -> None:
    name, apply = CHANGES[change]
    model = fit(MODELS[name]())
    known = EXPORTER.fingerprint(model)

    apply(changed := copy.deepcopy(model))

    assert EXPORTER.fingerprint(changed) != known
    assert EXPORTER.fingerprint(model) == known


def test_functions_within() -> None:
    def made(factor: float) -> Any:
        return fit(
            pipeline.make_pipeline(
                preprocessing.FunctionTransformer(lambda x: x * factor), linear_model.LogisticRegression()
            )
        )

    one = made(2.0)
    two = copy.copy(one)
    two.steps = [(n, s) for n, s in one.steps]
    two.steps[0] = ("functiontransformer", made(2.5).steps[0][1])
    assert EXPORTER.fingerprint(one) != EXPORTER.fingerprint(two)
