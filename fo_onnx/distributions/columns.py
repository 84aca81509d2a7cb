"""Rows of a result as columns, wherever they lie: the seam between `Distributions` and the files.

A reader of a file implements `Rows` and decodes only what is asked for. Everything above it works the same for arrays in
memory, for a part of another result, and for a folder of files.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError, StoreWriteError
from .ids import shorten_list
from .probabilities import invalid_rows

Array = NDArray[Any]
COLUMNS = ("ids", "probs", "labels", "logits")
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


@dataclass(frozen=True)
class Layout:
    """The columns that rows have.

    Attributes:
        classes: Number of classes k.
        id_kind: ``"int"`` or ``"str"``.
        labels: Whether there are labels.
        logits: Whether there are logits.
    """

    classes: int
    id_kind: str
    labels: bool
    logits: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that are there."""
        return ("ids", "probs", *(("labels",) if self.labels else ()), *(("logits",) if self.logits else ()))

    def shape(self, column: str, length: int) -> tuple[int, ...]:
        """Return the shape of a column of `length` rows."""
        return (length, self.classes) if column in ("probs", "logits") else (length,)

    def make_column(self, column: str, length: int) -> Array:
        """Return an array for a column of `length` rows, whose values are not set yet."""
        is_text = column == "ids" and self.id_kind == "str"
        dtype = np.float32 if column in ("probs", "logits") else object if is_text else np.int64
        return np.empty(self.shape(column, length), dtype=dtype)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Any, where: str) -> Layout:
        """Return the layout that `as_dict` wrote. Raises `StoreError`, which names the file `where`, for anything else."""
        try:
            layout = cls(**entry)
        except TypeError:
            layout = None
        if layout is None or not (
            type(layout.classes) is int
            and 1 <= layout.classes < 2**31
            and layout.id_kind in ("int", "str")
            and type(layout.labels) is type(layout.logits) is bool
        ):
            raise StoreError(f"Reading {where}: its layout {entry!r} is not as this version knows it. It is damaged.")
        return layout


class Rows(Protocol):
    """Rows that can be read by position.

    Attributes:
        length: Number of rows n.
        layout: The columns.
        in_memory: Whether `read` gives views, so that a copy of a column would be a waste.
        step: How many rows are best read at once.
        where: The file, for messages; empty for arrays that a caller gave.
    """

    length: int
    layout: Layout
    in_memory: bool
    step: int
    where: str

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return rows ``start`` to ``stop − 1``, 0 ≤ start ≤ stop ≤ length. Raises `StoreError` for a damaged file."""


def read_chunks(rows: Rows, columns: Collection[str] = COLUMNS, step: int | None = None) -> Iterator[Columns]:
    """Yield all rows in order, `step` at a time; without it, as many as the reader likes best."""
    size = step or rows.step
    for start in range(0, rows.length, size):
        yield rows.read(start, min(start + size, rows.length), columns)


class ArrayRows:
    """Rows in arrays, which are those of `Columns`. Takes them as they are; `Distributions` checks what callers give.

    Ids that are ``None`` are 0 … n − 1, and take no memory. `where` is the file that the arrays come from.
    """

    in_memory = True

    def __init__(
        self,
        probs: NDArray[np.float32],
        ids: Array | None = None,
        labels: NDArray[np.int64] | None = None,
        logits: NDArray[np.float32] | None = None,
        *,
        where: str = "",
    ) -> None:
        self._arrays: dict[str, Array | None] = {"ids": ids, "probs": probs, "labels": labels, "logits": logits}
        self.length, classes = probs.shape
        id_kind = "int" if ids is None or ids.dtype.kind == "i" else "str"
        self.layout = Layout(classes, id_kind, labels is not None, logits is not None)
        self.step = max(1, min(65_536, 2**22 // max(1, classes)))
        self.where = where

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return views of the arrays; ids by position are made for the rows that are read."""
        part = {name: array[start:stop] for name in columns if (array := self._arrays[name]) is not None}
        if "ids" in columns and "ids" not in part:
            part["ids"] = np.arange(start, stop, dtype=np.int64)
        return Columns(**part)


class _RowsOfOthers:
    """Rows that are read through others, and their attributes."""

    def __init__(self, rows: Rows, length: int, *, in_memory: bool) -> None:
        self._rows = rows
        self.length, self.layout, self.in_memory = length, rows.layout, in_memory
        self.step, self.where = rows.step, rows.where


class CheckedRows(_RowsOfOthers):
    """Rows of others, checked as they are read: those of a file, which anybody may have written."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows, rows.length, in_memory=rows.in_memory)

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return the rows at these positions. Raises `StoreError`, which names rows that are no distribution."""
        part = self._rows.read(start, stop, columns)
        where, classes = f"Reading {self.where or 'rows'}", self.layout.classes
        advice = "The file is damaged, or was not written by fo-onnx."
        # In steps: a whole column in memory may be large, and its bad rows many.
        for begin in range(0, stop - start, self.step):
            end = begin + self.step
            if part.probs is not None and len(bad := invalid_rows(part.probs[begin:end])):
                ids = self._rows.read(start + begin, min(start + end, stop), ("ids",)).ids
                assert ids is not None
                raise StoreError(
                    f"{where}: rows that are no distribution (finite, not negative, sum 1 within 0.001); ids "
                    f"{shorten_list(ids[bad].tolist())}. {advice}"
                )
            if part.labels is not None and len(bad := invalid_labels(part.labels[begin:end], classes)):
                raise StoreError(
                    f"{where}: labels that are no class, classes are 0 … {classes - 1}: "
                    f"{shorten_list(part.labels[begin:end][bad].tolist())}. {advice}"
                )
        return part


class SelectedRows(_RowsOfOthers):
    """Rows of others at chosen positions, in any order.

    They are read in blocks of the others, as large as those are best read: quick if positions ascend; in a mixed order
    every block is read again for each part of the selection that needs it. A range is read as it lies there.
    """

    def __init__(self, rows: Rows, positions: NDArray[np.int64] | range) -> None:
        super().__init__(rows, len(positions), in_memory=rows.in_memory and isinstance(positions, range))
        self._positions = positions

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return the rows at these positions of the selection."""
        wanted = self._positions[start:stop]
        if isinstance(wanted, range) or len(wanted) == 0:
            first = wanted[0] if len(wanted) else 0
            return self._rows.read(first, first + len(wanted), columns)
        # Positions in ascending order, cut where a new block of the others begins.
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        ends = [*(np.flatnonzero(np.diff(ascending // self.step)) + 1).tolist(), len(ascending)]
        blocks = []
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            first, last = int(ascending[begin]), int(ascending[end - 1])
            block = self._rows.read(first, last + 1, columns)
            names = [name for name in COLUMNS if getattr(block, name) is not None]
            blocks.append({name: getattr(block, name)[ascending[begin:end] - first] for name in names})
        # Back into the order that was asked for.
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return Columns(**{name: np.concatenate([block[name] for block in blocks])[place] for name in blocks[0]})


class ReorderedRows(_RowsOfOthers):
    """Rows of others with their classes in another order, which gives the old column of each new one."""

    def __init__(self, rows: Rows, order: Sequence[int]) -> None:
        super().__init__(rows, rows.length, in_memory=False)
        self._order = np.asarray(order, dtype=np.int64)
        self._new_label = np.empty_like(self._order)
        self._new_label[self._order] = np.arange(len(self._order))

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return the rows at these positions, reordered; labels count the new columns."""
        part = self._rows.read(start, stop, columns)
        return Columns(
            ids=part.ids,
            probs=None if part.probs is None else np.ascontiguousarray(part.probs[:, self._order]),
            labels=None if part.labels is None else self._new_label[part.labels],
            logits=None if part.logits is None else np.ascontiguousarray(part.logits[:, self._order]),
        )


def invalid_labels(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the positions of the labels (n,) that are no class, 0 … `classes` − 1."""
    # A negative number is a huge one without its sign, so that one comparison does for both ends.
    if len(labels) == 0 or int(np.ascontiguousarray(labels).view(np.uint64).max()) < classes:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero((labels < 0) | (labels >= classes))


def make_array(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return an array to decode into: in memory, or in a temporary file if it is large; that file goes with the array.

    Text is in memory always.

    Raises:
        StoreWriteError: There is no room for that file.
    """
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if size_bytes <= IN_MEMORY_BYTES or np.dtype(dtype).hasobject:
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
