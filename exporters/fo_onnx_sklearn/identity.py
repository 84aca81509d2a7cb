"""The identity of a fitted estimator: its class, its parameters and its fitted state, as a pickle of it would hold them.

No pickle itself is hashed, since those of equal estimators differ: by random states, by counts of searches, and by the
order of sets.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

from fo_onnx.plugin_kit import digests

from .detect import estimator_of

WITHOUT_EFFECT = ("n_jobs", "verbose", "_sklearn_output_config", "_metadata_request")
"""Attributes that say how an estimator runs or is fitted, and nothing of the rows that it gives."""


def fingerprint(model: Any) -> str:
    """Return a digest of an estimator with its parameters, its fitted arrays and the functions in it."""
    return digests.sha256_of(_of_value(estimator_of(model), frozenset()))


def _of_value(value: Any, owners: frozenset[int]) -> Iterator[bytes]:
    """Yield a value with what it holds; `owners` are the ids of what it lies in, where the walk ends."""
    kind = type(value)
    parts: tuple[Any, ...] = ()
    if digests.is_plain(value) or (isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject):
        yield from digests.of_value(value)
    elif isinstance(value, set | frozenset):
        yield digests.of_constant(value)
    elif inspect.isclass(value) or inspect.isfunction(value) or inspect.isbuiltin(value):
        yield from digests.of_callable(value)
    elif isinstance(value, np.random.RandomState | np.random.Generator) or id(value) in owners:
        yield digests.qualified_name(kind).encode()  # predict_proba draws nothing
    elif kind in (list, tuple):
        parts = (len(value), *value)
    elif kind is dict:
        items = [(k, v) for k, v in value.items() if k not in WITHOUT_EFFECT]
        parts = (len(items), *sorted(items, key=lambda item: str(item[0])))
    elif hasattr(value, "get_tree_stats"):
        # A tree of points follows from them and from the parameters; its own state counts its searches.
        parts = (kind, np.asarray(value.data))
    elif kind.__module__.startswith("scipy.sparse"):
        rows = value.tocoo()
        parts = (kind, rows.shape, rows.row, rows.col, rows.data)
    else:
        parts = (kind, *_state_of(value))
    for part in parts:
        yield from _of_value(part, owners | {id(value)})


def _state_of(value: Any) -> Iterator[Any]:
    """Yield what an object is pickled by; nothing for a lock, say, or a session of another program, which has only its class."""
    try:
        reduced = value.__reduce_ex__(4)
    except (TypeError, AttributeError, pickle.PicklingError):
        return
    for part in [reduced] if isinstance(reduced, str) else reduced[1:]:
        yield list(part) if isinstance(part, Iterator) else part
