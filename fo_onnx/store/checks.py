"""What a sink demands of every append: shapes, types, distributions, ids that were not there before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..errors import DataError, StoreError
from ..rows import Array, Columns, as_ids, duplicated, not_distributions, some
from .schema import Layout

DOING = "Taking rows of results"


class SeenIds:
    """Ids so far, each once.

    While they increase, as positions and sorted file names do, only the last one is kept. When one does not, all that
    came before are read again, once, and kept from then on.

    Args:
        before: Gives the ids of all rows that were taken before, in parts.
    """

    def __init__(self, before: Callable[[], Iterable[Array]]) -> None:
        self._before = before
        self._last: int | str | None = None
        self._seen: set[int | str] | None = None

    def restore(self) -> None:
        """Takes over what came before this object was made."""
        for part in self._before():
            if len(part) and not ((self._last is None or part[0] > self._last) and (part[1:] > part[:-1]).all()):
                self._seen = {i for ids in self._before() for i in ids.tolist()}
                return
            if len(part):
                self._last = part[-1]

    def follow(self, last: int) -> None:
        """Takes over that ids increased up to `last`; for callers that know it anyway."""
        self._last = last

    def take(self, ids: Array) -> None:
        """Remembers `ids`. Raises `StoreError` where one was there before; then none is remembered."""
        if len(ids) == 0:
            return
        if self._seen is None:
            if (self._last is None or ids[0] > self._last) and (ids[1:] > ids[:-1]).all():
                self._last = ids[-1]
                return
            seen: set[int | str] = set()
            for part in self._before():
                seen.update(part.tolist())
            self._seen = seen
        doubled = duplicated(ids)
        if not doubled:
            doubled = [i for i in ids.tolist() if i in self._seen]
        if doubled:
            raise StoreError(
                f"{DOING}: duplicate ids, each may be there once: {some(doubled)}. Give ids= that tell all rows apart."
            )
        self._seen.update(ids.tolist())


def checked(
    layout: Layout,
    ids: Any,
    probs: Any,
    labels: Any,
    logits: Any,
) -> Columns:
    """One append, as columns of the layout. Raises `StoreError` for anything that does not fit it."""
    k = layout.classes
    if not isinstance(probs, np.ndarray) or probs.dtype != np.float32 or probs.ndim != 2 or probs.shape[1] != k:
        raise StoreError(f"{DOING}: probs are {_kind(probs)}; float32 of shape (n, {k}) was expected.")
    n = len(probs)
    if not (isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1):
        try:
            ids = as_ids(ids, DOING)
        except DataError as err:
            raise StoreError(str(err)) from err
        if len(ids) == 0:
            ids = np.empty(0, dtype=np.int64 if layout.id_kind == "int" else object)
    if len(ids) != n or (ids.dtype == np.int64) != (layout.id_kind == "int"):
        raise StoreError(
            f"{DOING}: {n} rows came with {len(ids)} ids of {ids.dtype}; {n} ids of kind {layout.id_kind!r} were "
            "expected."
        )
    if (labels is not None) != layout.labels or (logits is not None) != layout.logits:
        raise StoreError(
            f"{DOING}: labels {'came' if labels is not None else 'did not come'} and logits "
            f"{'came' if logits is not None else 'did not come'}; every append of this run has labels: "
            f"{layout.labels}, logits: {layout.logits}."
        )
    if logits is not None and (
        not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.shape != (n, k)
    ):
        raise StoreError(f"{DOING}: logits are {_kind(logits)}; float32 of shape ({n}, {k}) was expected.")
    if labels is not None:
        if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (n,):
            raise StoreError(f"{DOING}: labels are {_kind(labels)}; int64 of shape ({n},) was expected.")
        # A negative number is a huge one without its sign.
        if n and np.maximum.reduce(labels.view(np.uint64)) >= k:
            wrong = (labels < 0) | (labels >= k)
            raise StoreError(
                f"{DOING}: labels that are no class, classes are 0 … {k - 1}: {some(labels[wrong].tolist())} at ids "
                f"{some(ids[wrong].tolist())}."
            )
    if len(bad := not_distributions(probs)):
        raise StoreError(
            f"{DOING}: rows that are no distribution (finite, not negative, sum 1 within 0.001), ids "
            f"{some(ids[bad].tolist())}."
        )
    return Columns(ids, probs, labels, logits)


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
