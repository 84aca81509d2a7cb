"""Rows of one file, which stay the rows of that file: the border between the formats' readers and everything else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from ...distributions.columns import COLUMNS, Array, ArrayRows, Columns, Rows
from ...distributions.ids import normalise_ids
from ...errors import StoreError, reading
from ...guards.limits import check_regular
from ..schema import FOR_LARGE_RESULTS, check_against_rows

Stamp = tuple[int, int, int]
Reader = Callable[[Path], tuple[Rows, dict[str, Any]]]


class FileRows:
    """Rows of a file as it was when it was opened.

    Whatever a reader meets in a damaged or hostile file is an error that names it. If another file has taken the name, the
    rows are those of the old one, which the reader has open, mapped or in memory; a file that was changed in its place is
    refused. Pickled without rows: another process opens the file again, if it is still the same.

    Args:
        path: The file.
        read: The reader of its format, a function of a module.

    Raises:
        StoreError: It is no regular file, cut short, damaged, of another kind or of a newer schema.

    Attributes:
        meta: What stands in the file besides the rows, checked.
    """

    def __init__(self, path: Path, read: Reader) -> None:
        self._path, self._read = path, read
        self._stamp = read_stamp(path)
        self._rows: Rows | None = None
        self.where = str(path)
        rows, self.meta = self._open()
        self.length, self.layout, self.in_memory, self.step = rows.length, rows.layout, rows.in_memory, rows.step

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the rows, and meta, which travels with the `Distributions`."""
        return self.__dict__ | {"_rows": None, "meta": {}}

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Return the rows at these positions. Raises `StoreError` if the file is damaged, or changed since it was opened."""
        rows = self._rows or self._open()[0]
        with reading(self._path, StoreError):
            self._require_same_file(is_open=True)
            part = rows.read(start, stop, columns)
            self._require_same_file(is_open=True)
        return part

    def _open(self) -> tuple[Rows, dict[str, Any]]:
        with reading(self._path, StoreError):
            self._require_same_file(is_open=False)
            check_regular(self._path, StoreError)
            try:
                rows, meta = self._read(self._path)
            except MemoryError as err:
                raise StoreError(
                    f"Reading {self._path}: it takes more memory than there is. {FOR_LARGE_RESULTS}"
                ) from err
            check_against_rows(meta, rows)
            self._require_same_file(is_open=False)
        self._rows = rows
        return rows, meta

    def _require_same_file(self, *, is_open: bool) -> None:
        now = read_stamp(self._path)
        if now == self._stamp:
            return
        # A reader that has the file open keeps the old one after it was replaced, not after it was written into.
        was_replaced = now is None or self._stamp is None or now[0] != self._stamp[0]
        if was_replaced and is_open:
            return
        what = "is gone" if now is None else "changed"
        raise StoreError(f"Reading {self._path}: the file {what} since it was loaded. Load it again.")


def read_stamp(path: Path) -> Stamp | None:
    """Return what tells a file from another one that takes its place; ``None`` if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def to_rows(columns: dict[str, Array], where: str) -> ArrayRows:
    """Return the columns of a file as rows. Ids may be of any type that `normalise_ids` knows.

    Args:
        columns: The columns by name: at least ids and probs.
        where: The file.

    Raises:
        StoreError: A column is of another type, or has not one row for each row of probs (n, classes).
    """
    probs = columns["probs"]
    n, k = probs.shape if probs.ndim == 2 else (0, 0)
    for name, array in columns.items():
        is_wide = name in ("probs", "logits")
        dtype = array.dtype if name == "ids" else np.dtype("<f4" if is_wide else "<i8")
        if array.dtype != dtype or array.shape != ((n, k) if is_wide else (n,)) or k == 0:
            raise StoreError(
                f"Reading {where}: {name} of shape {array.shape} and dtype {array.dtype} beside probs of shape "
                f"{probs.shape}; {dtype} with one row for each row of (n, classes) was expected."
            )
    ids = normalise_ids(columns["ids"], f"Reading {where}", StoreError)
    return ArrayRows(**{**columns, "ids": ids}, where=where)
