"""Checks of every append to a sink: shapes, types, labels, and ids that were not there before.

That rows are distributions is checked by `fo_onnx.distributions.probabilities.invalid_rows` before they come here, once for each batch:
by the pipeline, which knows what becomes of bad rows, or by the rows of a file as they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..distributions.columns import Array, Columns, Layout, invalid_labels
from ..distributions.ids import find_duplicates, is_increasing, normalise_ids, shorten_list
from ..errors import StoreError

DOING = "Taking rows of results"


class SeenIds:
    """Ids so far, each once.

    While they increase, as positions and sorted file names do, only the last one is remembered. When one does not, all
    that came before are read again, once, and remembered from then on.

    Args:
        read_earlier: Returns the ids of all rows that were taken before, in parts; those that are there now are remembered.
    """

    def __init__(self, read_earlier: Callable[[], Iterable[Array]]) -> None:
        self._read_earlier = read_earlier
        self._last: int | str | None = None
        self._seen: set[int | str] | None = None
        if not all(map(self._continues, read_earlier())):
            self._seen = self._gather()

    def take(self, ids: Array) -> None:
        """Remember `ids` (n,). Raises `StoreError` if one was there before; then none is remembered."""
        if self._seen is None:
            if self._continues(ids):
                return
            self._seen = self._gather()
        if doubled := find_duplicates(ids) or [i for i in ids.tolist() if i in self._seen]:
            raise StoreError(
                f"{DOING}: duplicate ids, each may be there once: {shorten_list(doubled)}. Give ids= that tell all rows "
                "apart."
            )
        self._seen.update(ids.tolist())

    def _continues(self, ids: Array) -> bool:
        """Return whether `ids` increase after the last one, which then is the last of them."""
        if len(ids) == 0:
            return True
        if (self._last is not None and not ids[0] > self._last) or not is_increasing(ids):
            return False
        self._last = ids[-1]
        return True

    def _gather(self) -> set[int | str]:
        return {i for ids in self._read_earlier() for i in ids.tolist()}


def check_append(layout: Layout, ids: Any, probs: Any, labels: Any, logits: Any) -> Columns:
    """Return one append as columns of the layout. Raises `StoreError` if anything does not fit it."""
    k = layout.classes
    if not isinstance(probs, np.ndarray) or probs.dtype != np.float32 or probs.ndim != 2 or probs.shape[1] != k:
        raise StoreError(f"{DOING}: probs are {_describe(probs)}; float32 of shape (n, {k}) was expected.")
    n = len(probs)
    # Ids of a source are int64 mostly, and there is nothing to do.
    if not (isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1):
        ids = normalise_ids(ids, DOING, StoreError)
        if len(ids) == 0:
            ids = layout.make_column("ids", 0)
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
    # Values that would be cast or broadcast could be wrong without a word.
    for name, values, dtype, shape in (("logits", logits, np.float32, (n, k)), ("labels", labels, np.int64, (n,))):
        if values is not None and not (
            isinstance(values, np.ndarray) and values.dtype == dtype and values.shape == shape
        ):
            raise StoreError(
                f"{DOING}: {name} are {_describe(values)}; {np.dtype(dtype)} of shape {shape} was expected."
            )
    if labels is not None and len(wrong := invalid_labels(labels, k)):
        raise StoreError(
            f"{DOING}: labels that are no class, classes are 0 … {k - 1}: {shorten_list(labels[wrong].tolist())} at ids "
            f"{shorten_list(ids[wrong].tolist())}."
        )
    return Columns(ids, probs, labels, logits)


def _describe(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
