"""An estimator as a classifier: whether it can be used as one, the columns that it takes, the classes that it gives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn import ensemble
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from fo_onnx.errors import ModelError, OutputError

from .detect import estimator_of, function_of_booster, is_estimator, package_of

MATRIX = "X"
"""The name of the one input of an estimator whose columns have no names."""
OUTPUT = "predict_proba"
"""The name of the one output, distributions (n, classes)."""
_TRANSPARENT = {
    "GridSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "TunedThresholdClassifierCV": "estimator_",
    "FixedThresholdClassifier": "estimator_",
    "SelfTrainingClassifier": "estimator_",
    "FrozenEstimator": "estimator",
}
"""Estimators whose ``predict_proba`` is that of the one within; their own thresholds concern ``predict`` only."""
_PREDICTS_AS = {
    "BalancedRandomForestClassifier": ensemble.RandomForestClassifier,
    "BalancedBaggingClassifier": ensemble.BaggingClassifier,
    "EasyEnsembleClassifier": ensemble.BaggingClassifier,
    "RUSBoostClassifier": ensemble.AdaBoostClassifier,
}
"""imbalanced-learn's ensembles, whose ``predict_proba`` is that of the class they are made from."""
_SAMPLERS = ("samplers_", "pipelines_", "base_sampler_")
"""Attributes that they are fitted with, and that have no part in a prediction."""


def classifier_of(model: Any) -> Any:
    """Return the fitted classifier that `model` is, or whose ``predict_proba`` it is.

    Raises:
        ModelError: It is not fitted, is no classifier, or answers several questions at once.
        OutputError: It has no ``predict_proba``.
    """
    estimator = estimator_of(model)
    name = type(estimator).__name__
    if function := function_of_booster(estimator):
        raise ModelError(
            f"{name} ({package_of(estimator)}) does not say which classes it predicts; a classifier with predict_proba and classes_ was "
            f"expected. Give its function as the model, {function}; say output='binary_probs' if it gives one number per row."
        )
    # A classifier that is fitted. What has predict_proba and classes_ is one, whatever its tags say.
    classes: Any = getattr(estimator, "classes_", None)
    if classes is None or not hasattr(estimator, "predict_proba"):
        _require_classifier(estimator, name)
    try:
        if is_estimator(estimator):
            check_is_fitted(estimator)
        elif classes is None:
            raise NotFittedError
    except NotFittedError as err:
        raise ModelError(f"{name} is not fitted; call fit(X, y) first.") from err
    if getattr(estimator, "refit", True) is False:
        raise ModelError(f"{name} was made with refit=False, and keeps no fitted estimator; make it with refit=True.")
    # Distributions, not distances.
    if not hasattr(estimator, "predict_proba"):
        has_scores = hasattr(estimator, "decision_function")
        hint = " Its decision_function gives distances, which are no logits." if has_scores else ""
        raise OutputError(
            f"{name} gives no class distributions: it has no predict_proba.{hint} Wrap it in CalibratedClassifierCV and fit that "
            f"(SGDClassifier: loss='log_loss'; VotingClassifier: voting='soft')."
        )
    # One class per row, of several.
    several = isinstance(classes, list) and any(map(np.ndim, classes))
    several = several or getattr(estimator, "multilabel_", False)
    if several or np.ndim(classes) != 1 or type(estimator).__name__ in ("ClassifierChain", "MultiOutputClassifier"):
        raise ModelError(
            f"{name} was fitted on several outputs per row (multi-output or multilabel); one class per row was expected. Give the "
            "classifier of one output, for example est.estimators_[0]."
        )
    if len(classes) < 2:
        raise ModelError(f"{name} was fitted on a single class, {classes[0]!r}; at least two were expected.")
    return estimator


def _require_classifier(estimator: Any, name: str) -> None:
    """Raise a `ModelError` if an estimator, which lacks ``predict_proba`` or ``classes_``, is no classifier by its tags either."""
    if not is_estimator(estimator) or is_classifier(estimator):
        return
    kind = get_tags(estimator).estimator_type
    if kind is None and hasattr(estimator, "predict_proba"):
        raise ModelError(
            f"{name} has predict_proba, but no classes_, as a fitted classifier has. Call fit(X, y) first; or, if it has none, give its "
            "rows by a function: lambda x: model.predict_proba(x)."
        )
    raise ModelError(
        f"{name} is {f'a {kind}' if kind else 'no classifier'}; a fitted classifier with predict_proba was expected. Give the "
        "classifier at the end of your pipeline, or the pipeline itself."
    )


def without_wrappers(estimator: Any) -> Any:
    """Return `estimator` without what has no part in a prediction.

    Every search, threshold and frozen wrapper in it is replaced by the estimator that it wraps. imbalanced-learn's samplers do nothing
    when rows are predicted: its pipelines lose them, and its ensembles become those of scikit-learn.

    The estimator itself stays as it is: what holds a wrapper is copied, one level deep, on the way down.
    """
    attribute = _TRANSPARENT.get(type(estimator).__name__)
    if attribute is not None and type(estimator).__module__.startswith("sklearn.") and hasattr(estimator, attribute):
        return without_wrappers(getattr(estimator, attribute))
    if package_of(estimator) == "imblearn":
        estimator = _without_samplers(estimator)
    attributes = {k: (v, _unwrap(v)) for k, v in vars(estimator).items()}
    changed = {k: new for k, (old, new) in attributes.items() if new is not old}
    if not changed:
        return estimator
    unwrapped = copy.copy(estimator)
    vars(unwrapped).update(changed)
    return unwrapped


def _without_samplers(estimator: Any) -> Any:
    """Return an estimator of imbalanced-learn as the estimator of scikit-learn that predicts the same, if there is one."""
    name = type(estimator).__name__
    if name == "Pipeline":
        return Pipeline([(n, step) for n, step in estimator.steps if not hasattr(step, "fit_resample")])
    if name not in _PREDICTS_AS:
        return estimator
    kind = _PREDICTS_AS[name]
    plain = kind.__new__(kind)
    vars(plain).update({k: v for k, v in vars(estimator).items() if k not in _SAMPLERS})
    return plain


def _unwrap(value: Any) -> Any:
    if is_estimator(value) or type(value).__name__ == "_CalibratedClassifier":
        return without_wrappers(value)
    if isinstance(value, list | tuple) and len(value) < 10_000:
        items = [_unwrap(v) for v in value]
        if any(a is not b for a, b in zip(items, value, strict=True)):
            return type(value)(items)
    return value


def class_names_of(classifier: Any) -> tuple[str, ...] | None:
    """Return the names of the classes; ``None`` if these are the numbers from 0 on."""
    classes = np.asarray(classifier.classes_)
    if classes.dtype.kind in "iuf" and np.array_equal(classes, np.arange(len(classes))):
        return None
    if classes.dtype.kind == "f" and np.array_equal(classes, np.floor(classes)):
        classes = classes.astype(np.int64)
    return tuple(str(c) for c in classes.tolist())


def column_names(model: Any) -> tuple[str, ...] | None:
    """Return the names of the columns that the estimator was fitted on, or ``None`` if they had none."""
    estimator = estimator_of(model)
    names = getattr(estimator, "feature_names_in_", None)
    if names is None and package_of(estimator) == "catboost":
        # It numbers the columns of a matrix.
        names = estimator.feature_names_
        names = None if names == [str(i) for i in range(len(names or ()))] else names
    return None if names is None else tuple(str(n) for n in names)
