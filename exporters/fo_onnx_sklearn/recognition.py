"""Which objects are scikit-learn's, told without importing it."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any


def sklearn_module() -> ModuleType | None:
    """scikit-learn, where somebody has imported it, whole."""
    # A module that is just being imported, by another thread say, lacks its names.
    found = sys.modules.get("sklearn.base")
    return found if found is not None and hasattr(found, "BaseEstimator") else None


def is_estimator(value: Any) -> bool:
    """Whether a value is an estimator, fitted or not, scikit-learn's own or another package's."""
    base = sklearn_module()
    return base is not None and not isinstance(value, type) and isinstance(value, base.BaseEstimator)


def is_model(value: Any) -> bool:
    """Whether a value is an estimator, or the bound method ``predict_proba`` of one, which means the same."""
    return is_estimator(value) or (
        inspect.ismethod(value) and value.__name__ == "predict_proba" and is_estimator(value.__self__)
    )


def estimator_of(model: Any) -> Any:
    """The estimator that `model` is, or whose ``predict_proba`` it is."""
    return model.__self__ if inspect.ismethod(model) else model
