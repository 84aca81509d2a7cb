"""An estimator as a classifier: whether it can be used as one, the columns that it takes, the classes that it gives."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import ModelError, OutputError

from .detect import estimator_of, is_estimator

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


def classifier_of(model: Any) -> Any:
    """Return the fitted classifier that `model` is, or whose ``predict_proba`` it is.

    Raises:
        ModelError: It is not fitted, is no classifier, or answers several questions at once.
        OutputError: It has no ``predict_proba``.
    """
    estimator = estimator_of(model)
    name = type(estimator).__name__
    # A classifier that is fitted.
    if not is_classifier(estimator):
        kind = get_tags(estimator).estimator_type
        raise ModelError(
            f"{name} is {f'a {kind}' if kind else 'no classifier'}; a fitted classifier with predict_proba was expected. Give the "
            "classifier at the end of your pipeline, or the pipeline itself."
        )
    try:
        check_is_fitted(estimator)
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
    classes: Any = getattr(estimator, "classes_", None)
    several = isinstance(classes, list) or getattr(estimator, "multilabel_", False)
    if several or np.ndim(classes) != 1 or type(estimator).__name__ in ("ClassifierChain", "MultiOutputClassifier"):
        raise ModelError(
            f"{name} was fitted on several outputs per row (multi-output or multilabel); one class per row was expected. Give the "
            "classifier of one output, for example est.estimators_[0]."
        )
    if len(classes) < 2:
        raise ModelError(f"{name} was fitted on a single class, {classes[0]!r}; at least two were expected.")
    return estimator


def without_wrappers(estimator: Any) -> Any:
    """Return `estimator` with every search, threshold and frozen wrapper in it replaced by the estimator that it wraps.

    The estimator itself stays as it is: what holds a wrapper is copied, one level deep, on the way down.
    """
    attribute = _TRANSPARENT.get(type(estimator).__name__)
    if attribute is not None and type(estimator).__module__.startswith("sklearn.") and hasattr(estimator, attribute):
        return without_wrappers(getattr(estimator, attribute))
    attributes = {k: (v, _unwrap(v)) for k, v in vars(estimator).items()}
    changed = {k: new for k, (old, new) in attributes.items() if new is not old}
    if not changed:
        return estimator
    unwrapped = copy.copy(estimator)
    vars(unwrapped).update(changed)
    return unwrapped


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
    names = getattr(estimator_of(model), "feature_names_in_", None)
    return None if names is None else tuple(str(n) for n in names)


def signature_of(model: Any) -> InputSignature:
    """Return the columns by name, in order, or one matrix."""
    names = column_names(model)
    return InputSignature((MATRIX,), (), (2,)) if names is None else InputSignature(names)
