"""What tells one fitted estimator from another: classes, parameters, and every fitted array, also those within C objects."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from fo_onnx import digests

from .recognition import estimator_of, is_estimator

LEFT_OUT = ("n_jobs", "verbose", "_sklearn_output_config", "_metadata_request")
"""Attributes that say how an estimator runs or is fitted, and nothing of the rows that it gives."""


def fingerprint(model: Any) -> str:
    """A digest of the classes, parameters and fitted state of an estimator, and of the functions that it holds."""
    digest = hashlib.sha256()
    for part in digests.of_object(estimator_of(model), _leaf, LEFT_OUT):
        # Each part with its length, so that no two sequences of parts have one text.
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _leaf(value: Any, walk: digests.Walk) -> Iterator[bytes] | None:
    """What is told of objects that keep their state outside of ``__dict__``, as scikit-learn's trees do."""
    if isinstance(value, type | np.ndarray | np.generic | np.dtype) or is_estimator(value) or inspect.isroutine(value):
        return None
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return iter([])  # draws nothing in predict_proba
    kind = type(value)
    if "scipy.sparse" in kind.__module__:
        return _of_sparse(value, walk)
    if kind.__module__.startswith("sklearn.neighbors."):
        # A tree of points follows from them and from the estimator's parameters; its own state counts its searches.
        return walk(np.asarray(value.data))
    own_state = any("__getstate__" in vars(k) for k in kind.__mro__[:-1])
    if own_state or (kind.__module__.startswith("sklearn.") and not hasattr(value, "__dict__")):
        return _of_state(value, walk)
    return None


def _of_state(value: Any, walk: digests.Walk) -> Iterator[bytes]:
    """An object by what pickle would keep of it."""
    yield f"{type(value).__module__}.{type(value).__qualname__}".encode()
    reduced = value.__reduce_ex__(2)
    for part in reduced[1:3] if isinstance(reduced, tuple) else (reduced,):
        yield from walk(part)


def _of_sparse(value: Any, walk: digests.Walk) -> Iterator[bytes]:
    found = value.tocoo()
    yield f"{type(value).__qualname__} {found.shape}".encode()
    for part in (found.row, found.col, found.data):
        yield from walk(part)
