"""The identity of a fitted estimator: its class, its parameters and its fitted state, as a pickle of it would hold them.

No pickle itself is hashed, since those of equal estimators differ: by random states, by counts of searches, and by the
order of sets.
"""

from __future__ import annotations

import copyreg
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fo_onnx.plugin_kit import digests

from .detect import estimator_of, is_estimator

WITHOUT_EFFECT = ("n_jobs", "verbose", "_sklearn_output_config", "_metadata_request")
"""Attributes that say how an estimator runs or is fitted, and nothing of the rows that it gives."""


def fingerprint(model: Any) -> str:
    """Return a digest of an estimator with its parameters, its fitted arrays and the functions in it."""
    return _digest_of(estimator_of(model), {}, 0)


def _digest_of(value: Any, known: dict[int, tuple[Any, str]], depth: int) -> str:
    """Return the digest of a value with what it holds.

    `known` holds digests by id, and the values themselves, so that no other value gets the id. The digest of what this value
    lies in is not known yet: its depth stands for it, and ends the walk of objects that hold each other.
    """
    if id(value) in known:
        return known[id(value)][1]
    if digests.is_plain(value) or (isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject):
        return digests.sha256_of(digests.of_value(value))
    known[id(value)] = value, str(depth)
    if inspect.isclass(value) or inspect.isfunction(value):
        digest = digests.sha256_of(digests.of_callable(value))
    else:
        digest = digests.sha256_of([_digest_of(part, known, depth + 1).encode() for part in _parts_of(value)])
    known[id(value)] = value, digest
    return digest


def _parts_of(value: Any) -> tuple[Any, ...]:
    """Return the class of an object and what its pickle would hold."""
    kind = type(value)
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return (kind,)  # predict_proba draws nothing
    if isinstance(value, set | frozenset):
        return (kind, digests.of_constant(value))
    if kind in (list, tuple):
        return (kind, *value)
    if kind is dict:
        return (kind, *sorted(value.items(), key=lambda item: str(item[0])))
    if hasattr(value, "get_tree_stats"):
        # A tree of points follows from them and from the parameters; its own state counts its searches.
        return (kind, np.asarray(value.data))
    if kind.__module__.startswith("scipy.sparse"):
        rows = value.tocoo()
        return (kind, rows.shape, rows.row, rows.col, rows.data)
    if kind.__module__.startswith("catboost") and hasattr(value, "get_metadata"):
        value = _without_history(value)
    return (kind, *_reduce(value))


def _without_history(model: Any) -> Any:
    """Return a copy of a fitted model of CatBoost, which notes in itself when it was trained, without its notes but for the classes."""
    copied = model.copy()
    notes = copied.get_metadata()
    for key in list(notes.keys()):
        if key != "class_params":
            notes[key] = ""
    return copied


def _reduce(value: Any) -> Iterator[Any]:
    """Yield what an object is pickled by; nothing for a lock, say, or a session of another program, which has only its class."""
    reduce: Callable[[Any], Any] = copyreg.dispatch_table.get(type(value), lambda other: other.__reduce_ex__(4))
    try:
        reduced = reduce(value)
    except (TypeError, AttributeError, pickle.PicklingError):
        return
    # A function of C is pickled by its name alone.
    for part in (reduced, getattr(value, "__module__", None)) if isinstance(reduced, str) else reduced:
        if isinstance(part, dict) and is_estimator(value):
            yield {k: v for k, v in digests.without_assigned(part, type(value)).items() if k not in WITHOUT_EFFECT}
        else:
            yield list(part) if isinstance(part, Iterator) else part
