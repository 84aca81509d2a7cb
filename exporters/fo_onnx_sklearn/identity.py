"""The identity of a fitted estimator: its class, its parameters and its fitted state.

joblib's own hash goes most of the way, independent of addresses and of the hash seed. It alone would change when trees of
neighbours are searched and when arrays are pickled, and it refuses functions and classes without a global name.
"""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import numpy as np
from joblib.hashing import Hasher

from fo_onnx.plugin_kit import digests

from .detect import estimator_of, is_estimator

WITHOUT_EFFECT = ("n_jobs", "verbose", "_sklearn_output_config", "_metadata_request")
"""Attributes that say how an estimator runs or is fitted, and nothing of the rows that it gives."""


def fingerprint(model: Any) -> str:
    """Return a digest of an estimator with its parameters, its fitted arrays and the functions in it."""
    digest: str = _EstimatorHasher("sha256").hash(estimator_of(model))
    return digest


class _EstimatorHasher(Hasher):  # type: ignore[misc]
    """joblib's hash of objects, with a stand-in for each whose pickle is not the same for equal ones."""

    def __init__(self, hash_name: str) -> None:
        super().__init__(hash_name)
        self._estimators: dict[int, tuple[Any, list[Any]]] = {}

    def save(self, obj: Any) -> None:
        """Write an object into the hash."""
        stand_in = self._stand_in_of(obj)
        try:
            super().save(stand_in)
        except (TypeError, AttributeError, pickle.PicklingError):
            # A lock, say, or a session of another program: it counts by its class alone.
            super().save(digests.qualified_name(type(stand_in)))

    def _stand_in_of(self, value: Any) -> Any:
        kind = type(value)
        if is_estimator(value):
            # One stand-in for each, so that the pickler ends where estimators hold each other. It keeps the estimator alive,
            # since another one could get its id.
            state = {k: v for k, v in vars(value).items() if k not in WITHOUT_EFFECT}
            return self._estimators.setdefault(id(value), (value, [kind, state]))[1]
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            return ("array", digests.sha256_of(digests.of_array(np.asarray(value))))
        if isinstance(value, np.random.RandomState | np.random.Generator):
            return kind.__name__  # predict_proba draws nothing
        if isinstance(value, np.dtype):
            return ("dtype", str(value))
        if isinstance(value, frozenset):
            return ("frozenset", set(value))  # whose items the pickler sorts
        if inspect.isclass(value) or inspect.isfunction(value):
            return ("code", digests.sha256_of(digests.of_callable(value)))
        if kind.__module__.startswith("sklearn.neighbors."):
            # A tree of points follows from them and from the parameters; its own state counts its searches.
            return (kind, np.asarray(value.data))
        if kind.__module__.startswith("scipy.sparse"):
            rows = value.tocoo()
            return (kind, rows.shape, rows.row, rows.col, rows.data)
        return value
