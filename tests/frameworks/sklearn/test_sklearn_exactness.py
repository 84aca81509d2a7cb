"""Every row of thousands that meet thresholds comes out of ONNX as it comes out of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import (
    calibration,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_selection,
    impute,
    linear_model,
    multiclass,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.frozen import FrozenEstimator
from sklearn_rows import EXPORTER, exported, fit, furthest, grid

ROWS = 5000
CLOSE = 1e-6
"""Total variation that sums in float32 may come to; a row on the other side of a threshold is 1e-2 and more away."""
logistic = linear_model.LogisticRegression


def a_tree(**options: Any) -> tree.DecisionTreeClassifier:
    return tree.DecisionTreeClassifier(random_state=0, **options)


CLASSIFIERS: dict[str, Any] = {
    "tree": a_tree,
    "extra_tree": tree.ExtraTreeClassifier,
    "forest": lambda: ensemble.RandomForestClassifier(15, random_state=0),
    "extra_trees": lambda: ensemble.ExtraTreesClassifier(15, random_state=0),
    "gradient_boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=15),
    "hist_gradient_boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=15),
    "ada_boost": lambda: ensemble.AdaBoostClassifier(n_estimators=15),
    "ada_boost_deep": lambda: ensemble.AdaBoostClassifier(a_tree(max_depth=3), n_estimators=10),
    "bagging": lambda: ensemble.BaggingClassifier(n_estimators=5, max_features=0.6, random_state=0),
    "bagging_linear": lambda: ensemble.BaggingClassifier(logistic(), n_estimators=3),
    "voting": lambda: ensemble.VotingClassifier(
        [("a", logistic()), ("b", a_tree(max_depth=4)), ("c", naive_bayes.GaussianNB())],
        voting="soft",
        weights=[1, 2, 3],
    ),
    "voting_dropped": lambda: ensemble.VotingClassifier(
        [("a", logistic()), ("b", "drop"), ("c", naive_bayes.GaussianNB())], voting="soft", weights=[1, 2, 3]
    ),
    "stacking": lambda: ensemble.StackingClassifier([("a", logistic()), ("b", a_tree(max_depth=4))], cv=2),
    "calibrated_svm": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
    "calibrated_forest": lambda: calibration.CalibratedClassifierCV(ensemble.RandomForestClassifier(5), cv=2),
    "calibrated_bagging": lambda: calibration.CalibratedClassifierCV(
        ensemble.BaggingClassifier(svm.LinearSVC(), n_estimators=3), cv=2
    ),
    "isotonic_linear": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic", cv=2),
    "isotonic_forest": lambda: calibration.CalibratedClassifierCV(
        ensemble.RandomForestClassifier(5), method="isotonic", cv=2
    ),
    "one_vs_rest": lambda: multiclass.OneVsRestClassifier(a_tree(max_depth=4)),
    "lda": discriminant_analysis.LinearDiscriminantAnalysis,
    "qda": discriminant_analysis.QuadraticDiscriminantAnalysis,
    "gaussian_nb": naive_bayes.GaussianNB,
    "bernoulli_nb": lambda: naive_bayes.BernoulliNB(binarize=4 / 3),
    "multinomial_nb": naive_bayes.MultinomialNB,
    "mlp": lambda: neural_network.MLPClassifier((8,), max_iter=50),
    "logistic": logistic,
    "sgd": lambda: linear_model.SGDClassifier(loss="modified_huber"),
    "svc": lambda: svm.SVC(probability=True),
}
BEFORE: dict[str, Any] = {
    "standard": preprocessing.StandardScaler,
    "min_max": preprocessing.MinMaxScaler,
    "max_abs": preprocessing.MaxAbsScaler,
    "robust": preprocessing.RobustScaler,
    "pca": lambda: decomposition.PCA(3),
    "bins": lambda: preprocessing.KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    "bins_ordinal": lambda: preprocessing.KBinsDiscretizer(4, encode="ordinal", strategy="uniform"),
    "polynomial": lambda: preprocessing.PolynomialFeatures(3),
    "interactions": lambda: preprocessing.PolynomialFeatures(2, interaction_only=True, include_bias=False),
    "binarizer": lambda: preprocessing.Binarizer(threshold=4 / 3),
    "normalizer": lambda: preprocessing.Normalizer("max"),
    "one_hot": preprocessing.OneHotEncoder,
    "one_hot_dropped": lambda: preprocessing.OneHotEncoder(drop="first"),
    "ordinal": preprocessing.OrdinalEncoder,
    "k_best": lambda: feature_selection.SelectKBest(k=3),
    "union": lambda: pipeline.FeatureUnion(
        [("a", preprocessing.StandardScaler()), ("b", preprocessing.MinMaxScaler())]
    ),
    "columns": lambda: compose.ColumnTransformer(
        [("s", preprocessing.StandardScaler(), [3, 1]), ("m", preprocessing.MinMaxScaler(), [2])],
        remainder="passthrough",
    ),
    "nested": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), preprocessing.MinMaxScaler()),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier(name: str, count: int) -> None:
    assert furthest(fit(CLASSIFIERS[name](), count=count), grid(ROWS, 7)) <= CLOSE


@pytest.mark.parametrize("name", BEFORE)
def test_what_comes_before_a_tree(name: str) -> None:
    model = fit(pipeline.make_pipeline(BEFORE[name](), a_tree()))

    assert furthest(model, grid(ROWS, 7)) <= CLOSE
    assert furthest(fit(pipeline.make_pipeline(BEFORE[name](), logistic())), grid(500, 7)) <= CLOSE


def test_exponential_loss() -> None:
    model = ensemble.GradientBoostingClassifier(loss="exponential", n_estimators=15)
    assert furthest(fit(model, count=2), grid(ROWS, 7)) <= CLOSE


DECIDED = {
    "gradient_boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=5),
    "hist_gradient_boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
    "ada_boost": lambda: ensemble.AdaBoostClassifier(n_estimators=5),
    "lda": discriminant_analysis.LinearDiscriminantAnalysis,
    "pipeline": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), logistic()),
    "pipeline_svm": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), svm.LinearSVC()),
    "extra_trees": lambda: ensemble.ExtraTreesClassifier(5),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", DECIDED)
def test_decision_functions_are_calibrated(name: str, count: int) -> None:
    model = calibration.CalibratedClassifierCV(DECIDED[name](), cv=2)
    assert furthest(fit(model, count=count), grid(ROWS, 7)) <= CLOSE


def test_a_frozen_classifier_is_calibrated() -> None:
    model = calibration.CalibratedClassifierCV(FrozenEstimator(fit(a_tree(max_depth=4))))
    assert furthest(fit(model), grid(ROWS, 7)) <= CLOSE


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8", "bool"])
def test_rows_of_other_dtypes(dtype: str) -> None:
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), a_tree()).fit(grid(300) * 3, grid(300)[:, 0] > 1)
    assert furthest(model, (grid(ROWS, 7) * 3).astype(dtype)) <= CLOSE


def holes(rows: int, seed: int) -> np.ndarray:
    x = grid(rows, seed)
    x[np.random.default_rng(seed).random(x.shape) < 0.1] = np.nan
    return x


@pytest.mark.parametrize(
    "make",
    [
        a_tree,
        lambda: ensemble.RandomForestClassifier(5),
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=10),
        lambda: pipeline.make_pipeline(impute.SimpleImputer(), a_tree()),
        lambda: pipeline.make_pipeline(
            preprocessing.StandardScaler(), impute.SimpleImputer(strategy="median"), a_tree()
        ),
        lambda: pipeline.make_pipeline(impute.SimpleImputer(strategy="constant", fill_value=-1), a_tree()),
        lambda: pipeline.make_pipeline(preprocessing.OneHotEncoder(), a_tree()),
    ],
)
def test_missing_values_that_a_model_takes(make: Any) -> None:
    model, x = fit(make(), holes(300, 3)), holes(ROWS, 4)
    assert furthest(model, x) <= CLOSE
    assert np.isfinite(exported(model, {"0": x})).all()


def test_missing_values_that_a_model_was_not_fitted_on() -> None:
    assert furthest(fit(ensemble.RandomForestClassifier(5)), holes(ROWS, 4)) <= CLOSE


@pytest.mark.parametrize("make", [logistic, lambda: ensemble.GradientBoostingClassifier(n_estimators=3)])
def test_missing_values_that_a_model_refuses(make: Any) -> None:
    model, x = fit(make()), holes(200, 4)

    assert furthest(model, x) <= CLOSE
    np.testing.assert_array_equal(np.isnan(exported(model, {"0": x})).all(axis=1), np.isnan(x).any(axis=1))


def test_missing_values_that_are_refused_in_some_columns() -> None:
    filled = compose.ColumnTransformer([("a", impute.SimpleImputer(), [0, 1]), ("b", "passthrough", [2, 3])])
    x = holes(200, 4)
    model = fit(pipeline.make_pipeline(filled, logistic()))

    assert furthest(model, x) <= CLOSE
    np.testing.assert_array_equal(np.isnan(exported(model, {"0": x})).all(axis=1), np.isnan(x[:, 2:4]).any(axis=1))


def test_infinity_is_refused() -> None:
    x = grid(50, 5)
    x[3, 2], x[7, 0] = np.inf, -np.inf

    probs = exported(fit(ensemble.RandomForestClassifier(5)), {"0": x})

    assert np.flatnonzero(np.isnan(probs).any(axis=1)).tolist() == [3, 7]


@pytest.mark.parametrize("encoder", [preprocessing.OneHotEncoder, preprocessing.OrdinalEncoder])
def test_an_unknown_category_is_refused(encoder: Any) -> None:
    model, x = fit(pipeline.make_pipeline(encoder(), a_tree())), grid(50, 5)
    x[4, 1] = 99

    assert furthest(model, x) <= CLOSE
    assert np.flatnonzero(np.isnan(exported(model, {"0": x})).any(axis=1)).tolist() == [4]


def test_an_unknown_category_that_is_taken() -> None:
    x = grid(50, 5)
    x[4, 1] = 99
    for encoder in (
        preprocessing.OneHotEncoder(handle_unknown="ignore"),
        preprocessing.OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    ):
        assert furthest(fit(pipeline.make_pipeline(encoder, a_tree())), x) <= CLOSE


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (pipeline.make_pipeline(preprocessing.Normalizer(), a_tree()), "DecisionTreeClassifier .* Normalizer"),
        (
            pipeline.make_pipeline(preprocessing.PowerTransformer(), ensemble.RandomForestClassifier(3)),
            "PowerTransformer",
        ),
        (ensemble.StackingClassifier([("a", logistic())], a_tree(), cv=2), "StackingClassifier's members"),
    ],
)
def test_the_reason_names_what_is_not_exact_before_a_threshold(model: Any, named: str) -> None:
    reason = EXPORTER.prefer_native(fit(model), {})
    assert reason is not None
    assert __import__("re").search(named, reason)


def test_what_is_exact_is_run_in_onnx() -> None:
    for before in BEFORE:
        if before != "normalizer":
            assert EXPORTER.prefer_native(fit(pipeline.make_pipeline(BEFORE[before](), a_tree())), {}) is None, before
    for name, make in CLASSIFIERS.items():
        assert EXPORTER.prefer_native(fit(make()), {}) is None, name
