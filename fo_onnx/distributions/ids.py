"""Ids of rows: integers or text, each once. Every id passes `normalise_ids`, wherever it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, FoOnnxError

Array = NDArray[Any]
_SHOWN_LETTERS = 100
"""The most letters of a value that a message shows."""


def normalise_ids(values: Any, doing: str, error: type[FoOnnxError] = DataError) -> Array:
    """Return anything of shape (n,) as ids as the project keeps them: (n,) int64, or an object array (n,) of str.

    Raises:
        FoOnnxError: As `error` says: ids that are neither all integers nor all text, integers beyond 64 signed bits, text
            that is no valid Unicode, or another shape.
    """
    array = values if isinstance(values, np.ndarray) else to_object_array(values)
    if array.ndim != 1:
        raise error(f"{doing}: ids of shape {array.shape} were given; one id per row was expected, shape (n,).")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and len(array) and int(array.max()) > np.iinfo(np.int64).max:
            raise error(f"{doing}: the id {array.max()} does not fit 64 signed bits; give such ids as text.")
        return array.astype(np.int64, copy=False)
    # Text that cannot be encoded would be refused by every format, at the end of the run.
    texts = array.astype(object) if array.dtype.kind == "U" else array
    if texts.dtype == object and all(isinstance(v, str) for v in texts):
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as err:
            raise error(
                f"{doing}: an id is no valid Unicode text ({err.reason}), and cannot be written to any file."
            ) from err
        return texts
    if array.dtype == object and all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in array):
        try:
            return array.astype(np.int64)
        except OverflowError as err:
            raise error(f"{doing}: an id does not fit 64 signed bits; give such ids as text.") from err
    odd = next((v for v in array.tolist() if not isinstance(v, str)), None) if array.dtype == object else array.dtype
    raise error(f"{doing}: ids must be all integers or all text; found {odd!r}.")


def to_object_array(values: Iterable[Any]) -> Array:
    """Return values as they are, in an object array (n,): numpy would turn [1, "a"] into two texts."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array


def require_unique(ids: Array, doing: str, error: type[FoOnnxError] = DataError) -> None:
    """Raise `error`, which names the ids, if one of (n,) ids is there more than once."""
    if duplicates := find_duplicates(ids):
        raise error(f"{doing}: duplicate ids, each may be there once: {shorten_list(duplicates)}.")


def find_duplicates(ids: Array) -> list[int | str]:
    """Return the ids that are there more than once, in order."""
    if is_increasing(ids):
        return []
    if ids.dtype.kind == "i":
        unique, counts = np.unique(ids, return_counts=True)
        return cast("list[int | str]", unique[counts > 1].tolist())
    return [i for i, count in Counter(ids.tolist()).items() if count > 1]


def is_increasing(ids: Array) -> bool:
    """Return whether every id is larger than the one before it, so that none can be there twice."""
    return len(ids) < 2 or bool((ids[1:] > ids[:-1]).all())


def are_consecutive(ids: Array, first: int) -> bool:
    """Return whether (n,) ids are the integers from `first` on."""
    return len(ids) == 0 or (ids.item(0) == first and ids.item(-1) == first + len(ids) - 1 and is_increasing(ids))


def to_range(parts: Iterable[Array]) -> range | None:
    """Return integer ids, in parts of at least one, as a range, which takes no memory; ``None`` if they are no such."""
    start = stop = 0
    for ids in parts:
        if start == stop:
            start = stop = ids.item(0)
        if not are_consecutive(ids, stop):
            return None
        stop += len(ids)
    return range(start, stop)


class IdIndex:
    """Positions of ids (n,), each of which is there once."""

    def __init__(self, ids: Array) -> None:
        is_text = ids.dtype.kind != "i"
        self._positions = {row_id: position for position, row_id in enumerate(ids.tolist())} if is_text else None
        # Integers are searched for in ascending order, which takes less memory than a dict.
        self._order = None if is_text or is_increasing(ids) else np.argsort(ids, kind="stable")
        self._ids = ids if self._order is None else ids[self._order]

    def find_position(self, key: int | str) -> int | None:
        """Return the position of an id; ``None`` if it is not there."""
        if self._positions is not None:
            return self._positions.get(cast(str, key))
        if isinstance(key, str) or not -(2**63) <= key < 2**63:
            return None
        place = int(np.searchsorted(self._ids, key))
        if place == len(self._ids) or self._ids[place] != key:
            return None
        return place if self._order is None else int(self._order[place])


def shorten_list(values: Collection[Any], most: int = 10) -> str:
    """Return a list for a message, cut short if it is long: ``1, 2, 3 … (500 in all)``."""
    texts = (repr(v) for _, v in zip(range(most), values, strict=False))
    shown = ", ".join(text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…" for text in texts)
    return shown if len(values) <= most else f"{shown} … ({len(values)} in all)"
