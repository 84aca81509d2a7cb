"""Recognises scikit-learn's estimators."""

from __future__ import annotations

import inspect
from typing import Any

from sklearn.base import BaseEstimator


def is_estimator(value: Any) -> bool:
    """Return whether a value is an estimator, fitted or not, scikit-learn's own or another package's."""
    return isinstance(value, BaseEstimator)


def is_model(value: Any) -> bool:
    """Return whether a value is an estimator, or the bound method ``predict_proba`` of one, which means the same."""
    return is_estimator(value) or (
        inspect.ismethod(value) and value.__name__ == "predict_proba" and is_estimator(value.__self__)
    )


def estimator_of(model: Any) -> Any:
    """Return the estimator that `model` is, or whose ``predict_proba`` it is."""
    return model.__self__ if inspect.ismethod(model) else model
