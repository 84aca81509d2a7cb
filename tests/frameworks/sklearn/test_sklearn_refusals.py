"""Values that ordinary rows do not have: what the estimator takes, the file takes; what it refuses is a bad row in both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import (
    calibration,
    compose,
    decomposition,
    ensemble,
    linear_model,
    naive_bayes,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn_rows import EXPORTER, exported, fit, furthest, grid

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.errors import DataError, RunError

logistic = linear_model.LogisticRegression
CLOSE = 1e-6
EXTREMES = (-1 / 3, -3.0, 0.1, 50.0, 1e-310, 1e20, 1e39, -1e39, 1e160, 1.7e308, -1.7e308, np.inf, -np.inf, np.nan)


def extreme_rows() -> np.ndarray:
    """Ordinary rows, then each of `EXTREMES` in one column and in all, and rows of zeros and of the largest value."""
    one, all_columns = grid(len(EXTREMES), 3), grid(len(EXTREMES), 3)
    one[:, 0] = EXTREMES
    all_columns[:] = np.array(EXTREMES)[:, None]
    return np.concatenate([grid(20, 7), one, all_columns, np.zeros((1, 5)), np.full((1, 5), 7 / 3)])


CLASSIFIERS: dict[str, Any] = {
    "tree": lambda: tree.DecisionTreeClassifier(random_state=0),
    "forest": lambda: ensemble.RandomForestClassifier(5, random_state=0),
    "gradient_boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=3),
    "hist_gradient_boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
    "ada_boost": lambda: ensemble.AdaBoostClassifier(n_estimators=3),
    "bagging": lambda: ensemble.BaggingClassifier(n_estimators=3, max_features=0.6, random_state=0),
    "bagging_hist": lambda: ensemble.BaggingClassifier(
        ensemble.HistGradientBoostingClassifier(max_iter=2), n_estimators=2
    ),
    "stacking": lambda: ensemble.StackingClassifier([("a", logistic()), ("b", tree.DecisionTreeClassifier())], cv=2),
    "isotonic_linear": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic", cv=2),
    "isotonic_logistic": lambda: calibration.CalibratedClassifierCV(logistic(), method="isotonic", cv=2),
    "sigmoid_nb": lambda: calibration.CalibratedClassifierCV(naive_bayes.MultinomialNB(), cv=2),
    "multinomial_nb": naive_bayes.MultinomialNB,
    "sgd": lambda: linear_model.SGDClassifier(loss="modified_huber", random_state=0),
    "logistic": logistic,
    "scaled": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), logistic()),
    "scaled_forest": lambda: pipeline.make_pipeline(
        preprocessing.StandardScaler(), ensemble.RandomForestClassifier(3, random_state=0)
    ),
    "clipped": lambda: pipeline.make_pipeline(
        preprocessing.PolynomialFeatures(2), preprocessing.MinMaxScaler(clip=True), logistic()
    ),
    "nested": lambda: pipeline.make_pipeline(
        pipeline.make_pipeline(preprocessing.StandardScaler(), decomposition.PCA(3)), logistic()
    ),
    "union": lambda: pipeline.make_pipeline(
        pipeline.FeatureUnion([("a", preprocessing.StandardScaler()), ("b", preprocessing.MaxAbsScaler())]), logistic()
    ),
    "voting": lambda: ensemble.VotingClassifier(
        [("a", pipeline.make_pipeline(preprocessing.StandardScaler(), logistic())), ("b", logistic())], voting="soft"
    ),
    "normalizer_l1": lambda: pipeline.make_pipeline(preprocessing.Normalizer("l1"), logistic()),
    "normalizer_l2": lambda: pipeline.make_pipeline(preprocessing.Normalizer("l2"), logistic()),
    "normalizer_max": lambda: pipeline.make_pipeline(preprocessing.Normalizer("max"), logistic()),
    "bins": lambda: pipeline.make_pipeline(preprocessing.KBinsDiscretizer(4, strategy="uniform"), logistic()),
    "one_hot": lambda: pipeline.make_pipeline(preprocessing.OneHotEncoder(), logistic()),
    "one_hot_ignores": lambda: pipeline.make_pipeline(preprocessing.OneHotEncoder(handle_unknown="ignore"), logistic()),
    "ordinal": lambda: pipeline.make_pipeline(preprocessing.OrdinalEncoder(), logistic()),
    "column_dropped": lambda: pipeline.make_pipeline(
        compose.ColumnTransformer([("kept", "passthrough", [1, 2, 3])], remainder="drop"), logistic()
    ),
}


def distributions_or_nan(probs: np.ndarray) -> np.ndarray:
    """What the head makes of raw probabilities: NaN where they are no distribution."""
    sound = (np.abs(probs.sum(axis=1) - 1) < 1e-3) & (probs >= 0).all(axis=1)
    return np.where(sound[:, None], probs, np.nan)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, on numbers that overflow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_extreme_values(name: str, count: int) -> None:
    model, x = fit(CLASSIFIERS[name](), count=count), extreme_rows()
    native = EXPORTER.native(model, {"0": x[:3]}, "auto", ModelOptions(), OutputOptions())

    expected, actual = distributions_or_nan(native.forward({"0": x})), distributions_or_nan(exported(model, {"0": x}))

    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, atol=CLOSE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_a_forest_refuses() -> None:
    x = grid(30, 5)
    x[4, 1], x[9, 2] = 1e39, -1.7e308  # float32 does not hold them
    model = fit(ensemble.RandomForestClassifier(5))

    with pytest.raises(ValueError, match="too large for dtype"):
        model.predict_proba(x)
    for runner in ("onnx", "native"):
        dists = fo.generate(model, x, runner=runner, on_error="skip", progress=False)
        assert sorted(set(range(30)) - set(dists.ids.tolist())) == [4, 9]


@pytest.mark.parametrize("runner", ["onnx", "native"])
@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_infinity_is_taken_where_the_estimator_takes_it(runner: str, on_error: str) -> None:
    dropping = compose.ColumnTransformer([("kept", "passthrough", [0, 1, 2])], remainder="drop")
    for estimator in (
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        pipeline.make_pipeline(dropping, logistic()),
    ):
        model, x = fit(estimator), grid(300, 4)
        x[280, 4], x[281, 4] = np.inf, -np.inf

        dists = fo.generate(model, x, runner=runner, on_error=on_error, progress=False)

        np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=CLOSE)


def test_infinity_is_refused_in_the_columns_that_are_used() -> None:
    dropping = compose.ColumnTransformer([("kept", "passthrough", [0, 1, 2])], remainder="drop")
    model, x = fit(pipeline.make_pipeline(dropping, logistic())), grid(60, 4)
    x[3, 1], x[5, 3], x[8, 2] = np.inf, np.inf, -np.inf

    assert np.flatnonzero(np.isnan(exported(model, {"0": x})).any(axis=1)).tolist() == [3, 8]


def test_categories_that_naive_bayes_has_not() -> None:
    ints = np.random.default_rng(0).integers(0, 4, (300, 5)).astype(float)
    model, x = fit(naive_bayes.CategoricalNB(), ints), ints[:40].copy()
    x[3, 0], x[5, 1], x[7, 2], x[9, 3] = -1, 4, 1e20, 0.7  # the last one is the category 0

    probs = exported(model, {"0": x})

    assert furthest(model, x) <= CLOSE
    assert np.flatnonzero(np.isnan(probs).any(axis=1)).tolist() == [3, 5, 7]


@pytest.mark.parametrize(("count", "least_uniform"), [(2, 0), (4, 10)])
def test_isotonic_curves_that_are_all_zero(count: int, least_uniform: int) -> None:
    x, y = make_classification(
        6000, 15, n_informative=12, n_classes=count, n_clusters_per_class=1, class_sep=0.4, random_state=6
    )
    forest = ensemble.RandomForestClassifier(10, random_state=0).fit(x[:1500], y[:1500])
    model = calibration.CalibratedClassifierCV(FrozenEstimator(forest), method="isotonic").fit(x[:1500], y[:1500])
    expected = model.predict_proba(x)

    assert (expected == 1 / count).all(axis=1).sum() >= least_uniform
    np.testing.assert_allclose(exported(model, {"0": x}), expected, atol=CLOSE)


def test_sigmoid_curves_that_are_all_zero() -> None:
    model = fit(calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2))
    for fold in model.calibrated_classifiers_:
        for calibrator in fold.calibrators:
            calibrator.b_ = 760.0  # beyond 709.8 the sigmoid is 0
    x = grid(500, 4) * 30
    expected = model.predict_proba(x)

    assert 0 < (expected == 1 / 3).all(axis=1).sum() < 500
    np.testing.assert_allclose(exported(model, {"0": x}), expected, atol=CLOSE)


def test_rows_that_are_refused_name_no_others() -> None:
    """Any error of one row is that row's, once the estimator has taken another one."""

    class Choosy(linear_model.LogisticRegression):
        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            if (x[:, 0] == 99).any():
                raise KeyError("99")
            return super().predict_proba(x)

    model, x = fit(Choosy()), grid(500, 4)
    x[::100, 0] = 99
    native = EXPORTER.native(model, {"0": x[:3]}, "cpu", ModelOptions(), OutputOptions())

    with pytest.raises(RunError, match="KeyError"):
        native.forward({"0": x[:1]})
    assert np.flatnonzero(np.isnan(native.forward({"0": x})).any(axis=1)).tolist() == list(range(0, 500, 100))
    assert np.isnan(native.forward({"0": x[:1]})).all()


def test_rows_of_another_width_are_no_bad_rows() -> None:
    with pytest.raises(DataError, match="expecting 5 features"):
        fo.generate(fit(logistic()), grid(20)[:, :4], on_error="skip", progress=False)
