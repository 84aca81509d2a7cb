"""Rows of a result as columns, wherever they lie: the seam between `Distributions` and the files.

A reader of a file implements `Rows`, decodes only what is asked for, and everything above it works the same for arrays
in memory, for a part of another result, and for a folder of files.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, StoreError, StoreWriteError
from .probabilities import UNIT_SUM_TOLERANCE, invalid_rows

Array = NDArray[Any]
COLUMNS = ("ids", "probs", "labels", "logits")
_SHOWN_LETTERS = 100
"""How much of an id a message shows."""
IN_MEMORY_BYTES = 64 * 2**20
"""A column that is decoded and larger than this goes into a temporary file that is mapped into memory."""


@dataclass(frozen=True)
class Columns:
    """Consecutive rows. A column that was not asked for, or is not there, is ``None``.

    Attributes:
        ids: (n,) int64, or an object array of str.
        probs: (n, k) float32.
        labels: (n,) int64.
        logits: (n, k) float32.
    """

    ids: Array | None = None
    probs: NDArray[np.float32] | None = None
    labels: NDArray[np.int64] | None = None
    logits: NDArray[np.float32] | None = None


class Rows(Protocol):
    """Rows that can be read by position.

    Attributes:
        length: Number of rows n.
        classes: Number of classes k.
        id_kind: ``"int"`` or ``"str"``.
        has_labels: Whether there are labels.
        has_logits: Whether there are logits.
        resident: Whether `read` gives views, so that a copy of a column would be a waste.
        step: How many rows are best read at once.
        where: The file, for messages; empty for arrays that someone gave.
    """

    @property
    def length(self) -> int: ...
    @property
    def classes(self) -> int: ...
    @property
    def id_kind(self) -> str: ...
    @property
    def has_labels(self) -> bool: ...
    @property
    def has_logits(self) -> bool: ...
    @property
    def resident(self) -> bool: ...
    @property
    def step(self) -> int: ...
    @property
    def where(self) -> str: ...

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Rows ``start`` to ``stop − 1``; 0 ≤ start ≤ stop ≤ length. Raises `StoreError` where the file is damaged."""


def chunks(rows: Rows, columns: Collection[str] = COLUMNS, step: int | None = None) -> Iterator[Columns]:
    """All rows in order, `step` at a time (the reader's own step where it is not given)."""
    size = step or rows.step
    for start in range(0, rows.length, size):
        yield rows.read(start, min(start + size, rows.length), columns)


class ArrayRows:
    """Rows in arrays. Takes them as they are; `Distributions` checks what people give.

    Args:
        probs: (n, k) float32.
        ids: (n,) int64 or object array of str; ``None`` for 0 … n − 1, which takes no memory.
        labels: (n,) int64 or ``None``.
        logits: (n, k) float32 or ``None``.
        where: The file that the arrays are mapped from.
    """

    resident = True

    def __init__(
        self,
        probs: NDArray[np.float32],
        ids: Array | None = None,
        labels: NDArray[np.int64] | None = None,
        logits: NDArray[np.float32] | None = None,
        *,
        where: str = "",
    ) -> None:
        self._probs, self._ids, self._labels, self._logits = probs, ids, labels, logits
        self.length, self.classes = probs.shape
        self.id_kind = "int" if ids is None or ids.dtype.kind == "i" else "str"
        self.has_labels, self.has_logits = labels is not None, logits is not None
        self.step = max(1, min(65_536, 2**22 // max(1, self.classes)))
        self.where = where

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Views of the arrays (ids are converted where they are the default, or fixed-width text)."""
        return Columns(
            ids=self._read_ids(start, stop) if "ids" in columns else None,
            probs=self._probs[start:stop] if "probs" in columns else None,
            labels=self._labels[start:stop] if self._labels is not None and "labels" in columns else None,
            logits=self._logits[start:stop] if self._logits is not None and "logits" in columns else None,
        )

    def _read_ids(self, start: int, stop: int) -> Array:
        if self._ids is None:
            return np.arange(start, stop, dtype=np.int64)
        part = self._ids[start:stop]
        return part.astype(object) if part.dtype.kind == "U" else part


class PartRows:
    """Rows ``start`` to ``stop − 1`` of others."""

    def __init__(self, rows: Rows, start: int, stop: int) -> None:
        self._rows, self._start = rows, start
        self.length, self.classes, self.id_kind = stop - start, rows.classes, rows.id_kind
        self.has_labels, self.has_logits = rows.has_labels, rows.has_logits
        self.resident, self.step, self.where = rows.resident, rows.step, rows.where

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """The rows at these positions of the part."""
        return self._rows.read(self._start + start, self._start + stop, columns)


class SelectedRows:
    """Rows of others at some positions, in any order.

    They are read in blocks of the others, as large as those are best read: quick where positions ascend; in a mixed order
    every block is read again for each part of the selection that needs it.

    Args:
        rows: The others.
        positions: (m,) positions in them.
    """

    resident = False

    def __init__(self, rows: Rows, positions: NDArray[np.int64]) -> None:
        self._rows, self._positions = rows, positions
        self.length, self.classes, self.id_kind = len(positions), rows.classes, rows.id_kind
        self.has_labels, self.has_logits = rows.has_labels, rows.has_logits
        self.step, self.where = rows.step, rows.where

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """The rows at these positions of the selection."""
        wanted = self._positions[start:stop]
        if len(wanted) == 0:
            return self._rows.read(0, 0, columns)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        ends = [*(np.flatnonzero(np.diff(ascending // self.step)) + 1).tolist(), len(ascending)]
        blocks = []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            first, last = int(ascending[begin]), int(ascending[end - 1])
            block = self._rows.read(first, last + 1, columns)
            blocks.append([_taken(getattr(block, name), ascending[begin:end] - first) for name in COLUMNS])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        whole = (None if parts[0] is None else np.concatenate(parts)[place] for parts in zip(*blocks, strict=True))
        return Columns(*whole)


def _taken(column: Array | None, positions: NDArray[np.int64]) -> Array | None:
    return None if column is None else column[positions]


class ReorderedRows:
    """Rows of others with their classes in another order.

    Args:
        rows: The others.
        order: For each new column, the old one.
    """

    resident = False

    def __init__(self, rows: Rows, order: Sequence[int]) -> None:
        self._rows = rows
        self._order = np.asarray(order, dtype=np.int64)
        self._new_label = np.empty_like(self._order)
        self._new_label[self._order] = np.arange(len(self._order))
        self.length, self.classes, self.id_kind = rows.length, rows.classes, rows.id_kind
        self.has_labels, self.has_logits = rows.has_labels, rows.has_logits
        self.step, self.where = rows.step, rows.where

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """The rows at these positions, reordered; labels count the new columns."""
        part = self._rows.read(start, stop, columns)
        if part.labels is not None:
            require_classes(part.labels, self.classes, self.where)
        return Columns(
            ids=part.ids,
            probs=None if part.probs is None else np.ascontiguousarray(part.probs[:, self._order]),
            labels=None if part.labels is None else self._new_label[part.labels],
            logits=None if part.logits is None else np.ascontiguousarray(part.logits[:, self._order]),
        )


def require_classes(labels: NDArray[np.int64], classes: int, where: str) -> None:
    """Raises a `StoreError` for labels (n,) in the file `where` that are no class, 0 … `classes` − 1."""
    # A negative number is a huge one without its sign.
    if len(labels) and int(np.ascontiguousarray(labels).view(np.uint64).max()) >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)]
        raise StoreError(
            f"Reading {where or 'rows'}: labels that are no class, classes are 0 … {classes - 1}: {some(wrong.tolist())}. "
            "The file is damaged, or was not written by fo-onnx."
        )


def as_ids(values: Any, doing: str) -> Array:
    """Ids as the project keeps them: int64, or an object array of str.

    Args:
        values: Anything of shape (n,).
        doing: What the ids are for, at the start of the message.

    Raises:
        DataError: For anything that is neither all integers nor all text.
    """
    if not isinstance(values, np.ndarray):
        values = list(values)
        # numpy would turn [1, "a"] into two texts.
        array = np.empty(len(values), dtype=object)
        array[:] = values
    else:
        array = values
    if array.ndim != 1:
        raise DataError(f"{doing}: ids of shape {array.shape} were given; one id per row was expected, shape (n,).")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and len(array) and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{doing}: the id {array.max()} does not fit 64 signed bits; give such ids as text.")
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype == object:
        if all(isinstance(v, str) for v in array):
            return _plain_text(array, doing)
        if all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in array):
            try:
                return array.astype(np.int64)
            except OverflowError as err:
                raise DataError(f"{doing}: an id does not fit 64 signed bits; give such ids as text.") from err
    odd = next((v for v in array.tolist() if not isinstance(v, str)), None) if array.dtype == object else array.dtype
    raise DataError(f"{doing}: ids must be all integers or all text; found {odd!r}.")


def _plain_text(array: Array, doing: str) -> Array:
    try:
        "".join(array).encode()
    except UnicodeEncodeError as err:
        raise DataError(
            f"{doing}: an id is no valid Unicode text ({err.reason}), and cannot be written to any file."
        ) from err
    return array


def strictly_increasing(ids: Array) -> bool:
    """Whether every id is larger than the one before it, so that none can be there twice."""
    return len(ids) < 2 or bool((ids[1:] > ids[:-1]).all())


def duplicated(ids: Array) -> list[int | str]:
    """The ids that are there more than once, in order."""
    if strictly_increasing(ids):
        return []
    if ids.dtype.kind == "i":
        unique, counts = np.unique(ids, return_counts=True)
        doubled: list[int | str] = unique[counts > 1].tolist()
        return doubled
    return [i for i, count in Counter(ids.tolist()).items() if count > 1]


def not_distributions(probs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions of the rows of (n, k) that are no distribution; quick where there are none."""
    if probs.size == 0:
        return _NONE
    # This runs for every batch. One number for the whole array is several times quicker than one per row: where the
    # squares of all deviations sum to less than the tolerance's square, each is below it. NaN fails every comparison.
    # Values within [0, 1] come first, since sums of others could overflow, and warn.
    if np.minimum.reduce(probs, axis=None) >= 0 and np.maximum.reduce(probs, axis=None) <= 1 + UNIT_SUM_TOLERANCE:
        deviation = probs.dot(_ones(probs.shape[1]))
        deviation -= 1
        if deviation.dot(deviation) <= UNIT_SUM_TOLERANCE**2:
            return _NONE
    with np.errstate(invalid="ignore", over="ignore"):
        return invalid_rows(probs)


_NONE: NDArray[np.int64] = np.empty(0, dtype=np.int64)


@lru_cache(maxsize=8)
def _ones(classes: int) -> NDArray[np.float32]:
    return np.ones(classes, dtype=np.float32)


def some(values: Collection[Any], most: int = 10) -> str:
    """A list for a message, cut short where it is long: ``1, 2, 3 … (500 in all)``."""
    texts = (repr(v) for _, v in zip(range(most), values, strict=False))
    shown = ", ".join(text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…" for text in texts)
    return shown if len(values) <= most else f"{shown} … ({len(values)} in all)"


def new_array(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array to decode into: in memory, or in a temporary file where it is large; that file goes with the array.

    Raises:
        StoreWriteError: Where there is no room for that file.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if size_bytes <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype)
    try:
        with tempfile.TemporaryFile(prefix="fo_onnx-") as file:
            if hasattr(os, "posix_fallocate"):
                # Without it a full disk would end the process with SIGBUS at some later write into the map.
                os.posix_fallocate(file.fileno(), 0, size_bytes)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape).view(np.ndarray)
    except (OSError, OverflowError) as err:
        folder = tempfile.tempdir or os.environ.get("TMPDIR") or "the system's temporary folder"
        raise StoreWriteError(
            f"Decoding rows into a temporary file of {size_bytes} bytes in {folder}: "
            f"{getattr(err, 'strerror', None) or err}. Free room there, set the environment variable TMPDIR to a folder "
            "that has room, or read fewer rows at once."
        ) from err
