"""Rows into one shard, and what belongs to it: the list of its bad rows and the digests of its inputs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from ...contracts.batch import BadRow
from ...distributions.columns import Array, Columns, Layout
from .. import files
from ..formats.parquet import GROUP_ROWS, ParquetOutput, group_rows
from ..schema import SCHEMA_VERSION
from .journal import Shard, name_shard_file
from .shard_reader import DATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAD_ROW = "bad row"
"""The mark of a line in a list of bad rows."""


@dataclass(frozen=True)
class ShardLimits:
    """When a shard ends.

    Attributes:
        size_bytes: Bytes of float data after which it ends.
        age_s: Seconds after which it ends.
        group_rows: Rows per row group, at most.
    """

    size_bytes: int = 32 * 2**20
    age_s: float = 60.0
    group_rows: int = GROUP_ROWS


class ShardWriter:
    """The shard that is being written, and its bad rows, in `bad`."""

    def __init__(
        self, folder: Path, layout: Layout, start: int, limits: ShardLimits, on_group: Callable[[Columns], None]
    ) -> None:
        """Begin a shard at position `start` of the source; `on_group` takes each row group that was written."""
        self.bad: list[BadRow] = []
        self._limits = limits
        self._row_bytes = 4 * layout.classes * (2 if layout.logits else 1)
        self._opened_s = time.monotonic()
        self._start, self._rows = start, 0
        self._path = folder / DATA / name_shard_file(start)
        temporary = folder / (self._path.name + files.TEMPORARY)
        # What stands under its name already is what a kill left of it: the journal does not name it yet.
        self._file = files.OutputFile(
            self._path, "writing rows", temporary=temporary, hashing=True, replaces=lambda path: True
        )
        # A row group never holds more than a shard may.
        meta = {"schema": SCHEMA_VERSION, "data": layout.as_dict(), "part": {"start": start}}
        size = group_rows(layout.classes, min(limits.group_rows, max(1, limits.size_bytes // self._row_bytes)))
        try:
            self._output = ParquetOutput(self._file, layout, meta, rows_per_group=size, on_group=on_group)
        except BaseException:
            self._file.discard()
            raise

    @property
    def stop(self) -> int:
        """Return the position after the last row that it accounts for."""
        return self._start + self._rows + len(self.bad)

    def add(self, columns: Columns, bad: Sequence[BadRow]) -> None:
        """Take rows, and the bad ones among them."""
        self._output.add(columns)
        self._rows += len(cast(Array, columns.ids))
        self.bad.extend(bad)

    def is_full(self) -> bool:
        """Return whether it is large or old enough."""
        size_bytes, age_s = self._rows * self._row_bytes, time.monotonic() - self._opened_s
        return size_bytes >= self._limits.size_bytes or age_s >= self._limits.age_s

    def finish(self, last_batch: bool) -> Shard:
        """Put it on the disk under its name, and return its entry for the journal."""
        # The footer, then fsync and the rename.
        try:
            self._output.close()
            self._file.finish()
        except BaseException:
            self.discard()
            raise
        return Shard(
            file=self._path.name,
            start=self._start,
            stop=self.stop,
            rows=self._rows,
            bad_rows=len(self.bad),
            bytes=self._file.size_bytes,
            sha256=self._file.sha256,
            last_batch=last_batch,
        )

    def discard(self) -> None:
        """Remove it."""
        self._output.discard()
        self._file.discard()


class InputDigests:
    """Digests of the inputs of rows on their way through a run, from whoever reads them to the shard that holds them."""

    def __init__(self) -> None:
        self._parts: dict[int, NDArray[np.uint64]] = {}
        self._lock = threading.Lock()

    def put(self, start: int, digests: NDArray[np.uint64]) -> None:
        """Take the digests of the rows from position `start` on; 0 stands for one that could not be read."""
        with self._lock:
            self._parts[start] = digests

    def take(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Return the digests of positions `start` to ``stop − 1``, and forget those before `stop`."""
        digests = np.zeros(stop - start, dtype=np.uint64)
        with self._lock:
            for begin, part in list(self._parts.items()):
                end = begin + len(part)
                first, last = max(begin, start), min(end, stop)
                if first < last:
                    digests[first - start : last - start] = part[first - begin : last - begin]
                if end <= stop:
                    del self._parts[begin]
        return digests


def encode_bad_rows(bad: Sequence[BadRow]) -> bytes:
    """Return bad rows as lines of JSON: position, id, reason, and a mark by which `is_list_of_bad_rows` knows them."""
    table = ({"fo_onnx": _BAD_ROW, "position": b.position, "id": b.id, "reason": b.reason} for b in bad)
    return b"".join(json.dumps(line).encode() + b"\n" for line in table)


def is_list_of_bad_rows(path: Path) -> bool:
    """Return whether a file was written by `encode_bad_rows`, all of it."""
    try:
        with path.open("rb") as file:
            lines = [json.loads(line) for line in file]
    except (OSError, ValueError, RecursionError):
        return False
    return bool(lines) and all(isinstance(line, dict) and line.get("fo_onnx") == _BAD_ROW for line in lines)
