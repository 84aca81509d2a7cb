"""Two estimators have one fingerprint if, and only if, they compute the same."""

from __future__ import annotations

import copy
import functools
import operator
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from fo_onnx_sklearn.identity import fingerprint
from fresh_python import run_python
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, pipeline, preprocessing, svm, tree
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn_rows import fit, grid

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
    known = fingerprint(model)

    assert fingerprint(fit(MODELS[name]())) == known
    assert fingerprint(pickle.loads(pickle.dumps(model))) == known
    model.predict_proba(grid(20))
    assert fingerprint(model) == known
    assert fingerprint(model.predict_proba) == known


@pytest.mark.parametrize("change", CHANGES)
def test_changed_estimators(change: str) -> None:
    name, apply = CHANGES[change]
    model = fit(MODELS[name]())
    known = fingerprint(model)

    apply(changed := copy.deepcopy(model))

    assert fingerprint(changed) != known
    assert fingerprint(model) == known


class Scaled(BaseEstimator):
    """An estimator with something of its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def transform(self, x: np.ndarray) -> np.ndarray:
        return x * 2


OWN: dict[str, Callable[[float], Any]] = {
    "number": lambda v: Scaled(v),
    "function": lambda v: Scaled(lambda x: x * v),
    "method of another": lambda v: Scaled(Scaled(v).transform),
    "class": lambda v: type("Scaled", (Scaled,), {"transform": (lambda s, x: x) if v == 1 else (lambda s, x: x + 1)})(
        0
    ),
    "text": lambda v: Scaled(np.array([f"a{v}", None], dtype=object)),
    "sparse": lambda v: Scaled(scipy.sparse.csr_matrix(np.eye(3) * v)),
    "beside what cannot be pickled": lambda v: Scaled([threading.Lock(), v]),
    "words": lambda v: Scaled(ENGLISH_STOP_WORDS | {str(v)}),
    "ufunc": lambda v: Scaled(np.log1p if v == 1 else np.expm1),
    "partial of a ufunc": lambda v: Scaled(functools.partial(np.power if v == 1 else np.add, 2)),
    "function of C": lambda v: Scaled(operator.abs if v == 1 else operator.neg),
    "pattern": lambda v: Scaled(re.compile(f"a{v}")),
    "method of a pattern": lambda v: Scaled(re.compile(f"a{v}").findall),
    "method of a dictionary": lambda v: Scaled({"a": v}.get),
    "call of a method": lambda v: Scaled(operator.methodcaller("clip", min=0, max=v)),
    "argument that is called verbose": lambda v: Scaled({"verbose": v}),
}


@pytest.mark.parametrize("name", OWN)
def test_what_estimators_hold(name: str) -> None:
    assert fingerprint(OWN[name](1.0)) == fingerprint(OWN[name](1.0))
    assert fingerprint(OWN[name](1.0)) != fingerprint(OWN[name](2.0))


def test_estimators_that_hold_each_other() -> None:
    one, other = Scaled(1), Scaled(2)
    one.value, other.value = other, one
    known = fingerprint(one)

    assert fingerprint(one) == known
    other.value = other
    assert fingerprint(one) != known


def test_estimators_that_share_what_they_hold() -> None:
    def share(value: Any, times: int) -> Any:
        return Scaled(functools.reduce(lambda inner, _: [inner, inner], range(times), Scaled(value)))

    assert fingerprint(share(1, 60)) == fingerprint(share(1, 60))
    assert fingerprint(share(1, 60)) != fingerprint(share(2, 60))
    assert fingerprint(copy.deepcopy(Scaled([[1], [1]]))) == fingerprint(Scaled([[1]] * 2))


def test_random_states_draw_nothing() -> None:
    model = Scaled(np.random.RandomState(0))
    known = fingerprint(model)
    model.value.normal()
    assert fingerprint(model) == known


def test_equal_in_another_process() -> None:
    program = (
        f"import {__name__} as t\n"
        "print([t.fingerprint(t.fit(make())) for make in t.MODELS.values()])\n"
        "print([t.fingerprint(make(1.0)) for make in t.OWN.values()])"
    )
    assert run_python(program, hash_seed=1) == run_python(program, hash_seed=2)


class Counting(linear_model.LogisticRegression):
    """Counts how often it is asked, for itself and for its class."""

    seen = 0

    def predict_proba(self, x: Any) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        Counting.seen += 1
        return super().predict_proba(x)


def test_a_count_of_calls_does_not_count() -> None:
    x = grid(60)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), Counting()).fit(x, np.arange(60) % 3)
    known = fingerprint(model)
    model.predict_proba(x)
    assert model[-1].calls == Counting.seen == 1
    assert fingerprint(model) == known
    shift(model[-1].coef_)
    assert fingerprint(model) != known
