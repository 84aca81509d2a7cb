"""Rows of one file, which stay the rows of that file: the border between the formats' readers and everything else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..errors import StoreError, reading
from ..limits import check_regular
from ..rows import COLUMNS, Columns, Rows

Stamp = tuple[int, int, int]
Reader = Callable[[Path], tuple[Rows, dict[str, Any]]]


class FileRows:
    """Rows of a file as it was when it was opened.

    Whatever a reader meets in a damaged or hostile file is an error that names it. Where another file has taken the
    name, a reader that holds the old one open or mapped goes on with it, and every other is refused: rows of another
    result are never given. Pickled without rows; another process opens the file again, if it is still the same.

    Args:
        path: The file.
        read: The reader of its format, a function of a module.

    Raises:
        StoreError: Where it is no regular file, cut short, damaged, of another kind or of a newer schema.

    Attributes:
        meta: What stands beside the rows, checked.
    """

    def __init__(self, path: Path, read: Reader) -> None:
        self._path, self._read = path, read
        self._stamp = stamp(path)
        self._rows: Rows | None = None
        self.where = str(path)
        rows, self.meta = self._open()
        self.length, self.classes, self.id_kind = rows.length, rows.classes, rows.id_kind
        self.has_labels, self.has_logits = rows.has_labels, rows.has_logits
        self.resident, self.step = rows.resident, rows.step

    def __getstate__(self) -> dict[str, Any]:
        """Without rows, and without meta, which travels beside them."""
        return self.__dict__ | {"_rows": None, "meta": {}}

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """The rows at these positions. Raises `StoreError` where the file is damaged, or changed since it was opened."""
        rows = self._rows or self._open()[0]
        with reading(self._path, StoreError):
            self._require_same(rows)
            part = rows.read(start, stop, columns)
            self._require_same(rows)
        return part

    def _open(self) -> tuple[Rows, dict[str, Any]]:
        with reading(self._path, StoreError):
            self._require_same(None)
            check_regular(self._path, StoreError)
            rows, meta = self._read(self._path)
            self._require_same(None)
        self._rows = rows
        return rows, meta

    def _require_same(self, rows: Rows | None) -> None:
        now = stamp(self._path)
        if now == self._stamp:
            return
        replaced = now is None or self._stamp is None or now[0] != self._stamp[0]
        if replaced and rows is not None and not getattr(rows, "opens_by_name", False):
            return
        what = "is gone" if now is None else "changed"
        raise StoreError(f"Reading {self._path}: the file {what} since it was loaded. Load it again.")


def stamp(path: Path) -> Stamp | None:
    """What tells a file from another one that takes its place; ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
