"""scikit-learn's cases of the coverage table: classifiers, pipelines and ensembles over rows that meet thresholds."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn import (
    calibration,
    compose,
    decomposition,
    discriminant_analysis,
    ensemble,
    frozen,
    gaussian_process,
    impute,
    linear_model,
    model_selection,
    multiclass,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

COLUMNS = 6


def rows(count: int, seed: int = 0) -> np.ndarray:
    """(count, 6) float64, thirds of few values."""
    return np.random.default_rng(seed).integers(0, 8, (count, COLUMNS)) / 3


def fitted(make: Callable[[], Any]) -> Any:
    x = rows(300)
    y = (x[:, 0] + x[:, 1] > 2.5).astype(int) + (x[:, 2] * x[:, 3] > 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make().fit(x, np.array(["no", "maybe", "yes"])[y])


def after(*steps: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: pipeline.make_pipeline(*(step() for step in steps))


def members() -> list[tuple[str, Any]]:
    return [("linear", linear_model.LogisticRegression(C=10)), ("tree", tree.DecisionTreeClassifier(random_state=0))]


def doubled(x: np.ndarray) -> np.ndarray:
    return x * 2


def other(module: str, name: str, **options: Any) -> Any:
    """An estimator of another package."""
    return getattr(importlib.import_module(module), name)(**options)


scaler, logistic = preprocessing.StandardScaler, partial(linear_model.LogisticRegression, C=10)
forest = partial(ensemble.RandomForestClassifier, 20, random_state=0)
MAKERS: dict[str, Callable[[], Any]] = {
    "logistic": logistic,
    "sgd": partial(linear_model.SGDClassifier, loss="log_loss", random_state=0),
    "lda": discriminant_analysis.LinearDiscriminantAnalysis,
    "qda": discriminant_analysis.QuadraticDiscriminantAnalysis,
    "gaussian_nb": naive_bayes.GaussianNB,
    "svc": partial(svm.SVC, probability=True, random_state=0),
    "mlp": partial(neural_network.MLPClassifier, (16,), max_iter=300, random_state=0),
    "tree": partial(tree.DecisionTreeClassifier, random_state=0),
    "forest": forest,
    "extra_trees": partial(ensemble.ExtraTreesClassifier, 20, random_state=0),
    "gradient_boosting": partial(ensemble.GradientBoostingClassifier, n_estimators=20, random_state=0),
    "hist_gradient_boosting": partial(ensemble.HistGradientBoostingClassifier, max_iter=20, random_state=0),
    "ada_boost": partial(
        ensemble.AdaBoostClassifier, tree.DecisionTreeClassifier(max_depth=3), n_estimators=5, random_state=0
    ),
    "bagging": partial(ensemble.BaggingClassifier, max_features=0.7, random_state=0),
    "voting": lambda: ensemble.VotingClassifier(members(), voting="soft", weights=[1, 2]),
    "stacking": lambda: ensemble.StackingClassifier(members(), logistic(), cv=3),
    "calibrated": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(random_state=0), cv=3),
    "calibrated_isotonic": lambda: calibration.CalibratedClassifierCV(forest(), method="isotonic", cv=3),
    "one_vs_rest": lambda: multiclass.OneVsRestClassifier(logistic()),
    "grid_search": lambda: model_selection.GridSearchCV(logistic(), {"C": [1.0, 10.0]}, cv=3),
    "scaler_forest": after(scaler, forest),
    "imputer_scaler_forest": after(impute.SimpleImputer, scaler, forest),
    "pca_logistic": after(scaler, partial(decomposition.PCA, 5), logistic),
    "bins_logistic": after(
        partial(preprocessing.KBinsDiscretizer, 4, quantile_method="averaged_inverted_cdf"), logistic
    ),
    "one_hot_tree": after(preprocessing.OneHotEncoder, partial(tree.DecisionTreeClassifier, random_state=0)),
    "polynomial_logistic": after(preprocessing.PolynomialFeatures, scaler, logistic),
    "columns_forest": after(
        lambda: compose.ColumnTransformer(
            [("s", scaler(), [0, 1]), ("b", preprocessing.Binarizer(threshold=1), [2, 3])]
        ),
        forest,
    ),
    "power_forest": after(preprocessing.PowerTransformer, forest),
    "neighbours": neighbors.KNeighborsClassifier,
    "gaussian_process": partial(gaussian_process.GaussianProcessClassifier, random_state=0),
    "categorical_nb": after(preprocessing.OrdinalEncoder, naive_bayes.CategoricalNB),
    "calibrated_frozen": lambda: calibration.CalibratedClassifierCV(
        frozen.FrozenEstimator(fitted(forest)), method="isotonic"
    ),
    "sampler_logistic": lambda: other(
        "imblearn.pipeline",
        "Pipeline",
        steps=[("sampler", other("imblearn.over_sampling", "SMOTE", random_state=0)), ("logistic", logistic())],
    ),
    "balanced_forest": partial(
        other, "imblearn.ensemble", "BalancedRandomForestClassifier", n_estimators=20, random_state=0
    ),
    "lightgbm": partial(other, "lightgbm", "LGBMClassifier", n_estimators=10, verbose=-1, n_jobs=1),
    "catboost": partial(other, "catboost", "CatBoostClassifier", iterations=10, verbose=0, allow_writing_files=False),
    "function": after(partial(preprocessing.FunctionTransformer, doubled), logistic),
}
CASES: dict[str, Callable[[], Any]] = {name: partial(fitted, make) for name, make in MAKERS.items()}
