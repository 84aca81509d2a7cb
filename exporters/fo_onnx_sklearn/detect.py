"""Recognises scikit-learn's estimators, and classifiers of other packages that are used like them.

Nothing is imported: a model of a package that is not loaded cannot be at hand.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

_BOOSTERS = {
    ("lightgbm", "Booster"): "booster.predict",
    ("xgboost", "Booster"): "booster.inplace_predict",
    ("catboost", "CatBoost"): "lambda x: model.predict(x, prediction_type='Probability')",
}
"""Trained trees that do not say what they predict, and the functions that give their distributions."""


def is_estimator(value: Any) -> bool:
    """Return whether a value is an estimator, fitted or not, scikit-learn's own or another package's."""
    base = sys.modules.get("sklearn.base")
    return base is not None and isinstance(value, base.BaseEstimator)


def is_classifier_by_use(value: Any) -> bool:
    """Return whether a value is an object with ``predict_proba`` and ``classes_``, as a CatBoostClassifier is."""
    return (
        not inspect.isclass(value)
        and not callable(value)
        and hasattr(value, "predict_proba")
        and hasattr(value, "classes_")
    )


def is_model(value: Any) -> bool:
    """Return whether a value is an estimator, is used like one, or is the bound ``predict_proba`` of one, which means the same."""
    owner = value.__self__ if inspect.ismethod(value) and value.__name__ == "predict_proba" else value
    return is_estimator(owner) or is_classifier_by_use(owner) or function_of_booster(value) is not None


def estimator_of(model: Any) -> Any:
    """Return the estimator that `model` is, or whose ``predict_proba`` it is."""
    return model.__self__ if inspect.ismethod(model) else model


def package_of(value: Any) -> str:
    """Return the package that a value's class is of."""
    return type(value).__module__.split(".")[0]


def function_of_booster(value: Any) -> str | None:
    """Return the function, as text, that gives the rows of a booster; ``None`` for anything else."""
    return _BOOSTERS.get((package_of(value), type(value).__name__))
