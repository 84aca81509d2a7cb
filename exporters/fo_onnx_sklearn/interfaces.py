"""What an estimator takes and gives: whether it is a classifier that can be used, its columns, its classes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from fo_onnx.errors import ModelError, OutputError
from fo_onnx.spec import InputSignature

from .recognition import estimator_of, is_estimator

MATRIX = "X"
"""The name of the one input of an estimator whose columns have no names."""
JOINED = "fo_onnx_sklearn/matrix"
"""The name, within a graph, of the matrix that is put together from columns; no column is called so."""
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
    """The fitted classifier that `model` is, or whose ``predict_proba`` it is.

    Raises:
        ModelError: It is not fitted, is no classifier, or answers several questions at once.
        OutputError: It has no ``predict_proba``.
    """
    from sklearn.base import is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    found = estimator_of(model)
    name = type(found).__name__
    if not is_classifier(found):
        kind = getattr(found, "_estimator_type", None) or _kind(found) or "no classifier"
        raise ModelError(
            f"{name} is {kind}; a fitted classifier with predict_proba was expected. Give the classifier at the end of your "
            "pipeline, or the pipeline itself."
        )
    try:
        check_is_fitted(found)
    except NotFittedError as err:
        raise ModelError(f"{name} is not fitted; call fit(X, y) first.") from err
    if getattr(found, "refit", True) is False:
        raise ModelError(f"{name} was made with refit=False, and keeps no fitted estimator; make it with refit=True.")
    if not hasattr(found, "predict_proba"):
        scores = (
            " Its decision_function gives distances, which are no logits."
            if hasattr(found, "decision_function")
            else ""
        )
        raise OutputError(
            f"{name} gives no class distributions: it has no predict_proba.{scores} Wrap it in CalibratedClassifierCV and fit that "
            f"(SGDClassifier: loss='log_loss'; VotingClassifier: voting='soft')."
        )
    classes: Any = getattr(found, "classes_", None)
    several = isinstance(classes, list) or getattr(found, "multilabel_", False)
    if several or np.ndim(classes) != 1 or type(found).__name__ in ("ClassifierChain", "MultiOutputClassifier"):
        raise ModelError(
            f"{name} was fitted on several outputs per row (multi-output or multilabel); one class per row was expected. Give the "
            "classifier of one output, for example est.estimators_[0]."
        )
    if len(classes) < 2:
        raise ModelError(f"{name} was fitted on a single class, {classes[0]!r}; at least two were expected.")
    return found


def without_wrappers(estimator: Any) -> Any:
    """`estimator` with every search, threshold and frozen wrapper in it replaced by the estimator that it stands for.

    The estimator itself stays as it is: what holds a wrapper is copied, one level deep, on the way down.
    """
    attribute = _TRANSPARENT.get(type(estimator).__name__)
    if attribute is not None and type(estimator).__module__.startswith("sklearn.") and hasattr(estimator, attribute):
        return without_wrappers(getattr(estimator, attribute))
    changed = {}
    for key, value in vars(estimator).items():
        new = _within(value)
        if new is not value:
            changed[key] = new
    if not changed:
        return estimator
    found = copy.copy(estimator)
    vars(found).update(changed)
    return found


def _within(value: Any) -> Any:
    if is_estimator(value) or type(value).__name__ == "_CalibratedClassifier":
        return without_wrappers(value)
    if isinstance(value, list | tuple) and len(value) < 10_000:
        new = [_within(v) for v in value]
        if any(a is not b for a, b in zip(new, value, strict=True)):
            return type(value)(new)
    return value


def class_names_of(classifier: Any) -> tuple[str, ...] | None:
    """The names of the columns: the classes where they are anything else than the numbers from 0 on."""
    classes = np.asarray(classifier.classes_)
    if classes.dtype.kind in "iuf" and np.array_equal(classes, np.arange(len(classes))):
        return None
    if classes.dtype.kind == "f" and np.array_equal(classes, np.floor(classes)):
        classes = classes.astype(np.int64)
    return tuple(str(c) for c in classes.tolist())


def column_names(model: Any) -> tuple[str, ...] | None:
    """The names of the columns that the estimator was fitted on, or ``None`` where they had none."""
    names = getattr(estimator_of(model), "feature_names_in_", None)
    return None if names is None else tuple(str(n) for n in names)


def feature_count(model: Any) -> int | None:
    """The number of columns that the estimator was fitted on, where it tells."""
    try:
        count = getattr(estimator_of(model), "n_features_in_", None)
    except AttributeError:
        return None
    return None if count is None else int(count)


def signature_of(model: Any) -> InputSignature:
    """The columns by name, in order, or one matrix."""
    names = column_names(model)
    return InputSignature((MATRIX,), (), (2,)) if names is None else InputSignature(names)


def _kind(estimator: Any) -> str | None:
    from sklearn.utils import get_tags

    kind = get_tags(estimator).estimator_type
    return None if kind is None else f"a {kind}"
