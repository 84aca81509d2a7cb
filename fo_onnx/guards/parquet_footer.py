"""Reads what a Parquet file says about its row groups, without Arrow, which ends the process on some damaged files.

pyarrow 26 reads a column's entry with ``RowGroupMetaData.column``, whose C++ exceptions Cython does not catch, for
example if the histogram of levels has the wrong size. Reading rows is safe: there Arrow turns them into Python's.
# source: Thrift compact protocol specification (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md); field
# numbers from parquet.thrift (github.com/apache/parquet-format).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FoOnnxError
from .limits import limit

_TAIL_BYTES = 8
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _COLUMN, _PATH, _VALUES, _UNCOMPRESSED = 4, 1, 3, 3, 3, 5, 6
_STATISTICS, _NULLS = 12, 3
"""The numbers of the fields: ``FileMetaData.row_groups``, ``RowGroup.columns`` and ``num_rows``,
``ColumnChunk.meta_data``, ``ColumnMetaData.path_in_schema``, ``num_values``, ``total_uncompressed_size`` and ``statistics``,
``Statistics.null_count``."""


@dataclass(frozen=True)
class ColumnEntry:
    """A column of a row group.

    Attributes:
        name: The column at the top, ``"probs"`` for ``probs.list.element``.
        values: Number of values in it, nulls included.
        size_bytes: Size of its pages once they are decompressed.
        nulls: Number of nulls in it; ``None`` if the file does not say.
    """

    name: str
    values: int
    size_bytes: int
    nulls: int | None = None


@dataclass(frozen=True)
class GroupEntry:
    """A row group: its number of rows, and its columns."""

    rows: int
    columns: tuple[ColumnEntry, ...]


def read_groups(path: Path, error: type[FoOnnxError]) -> list[GroupEntry]:
    """Return the row groups of a Parquet file, as its footer has them.

    Raises:
        FoOnnxError: Of the type `error`, for a footer that is larger than allowed.
        Exception: What `fo_onnx.errors.reading` catches, for what is no footer.
    """
    with path.open("rb") as file:
        # The last bytes are the footer's length and the magic number.
        size_bytes = file.seek(0, 2)
        file.seek(size_bytes - _TAIL_BYTES)
        tail = file.read()
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length > size_bytes - _TAIL_BYTES:
            raise error(f"Reading {path}: no Parquet footer at its end. It is cut short, damaged or of another kind.")
        if length > limit("FO_ONNX_MAX_HEADER_BYTES"):
            raise error(
                f"Reading {path}: a footer of {length} bytes. If it is meant, raise the limit: "
                "FO_ONNX_MAX_HEADER_BYTES=…"
            )
        file.seek(size_bytes - _TAIL_BYTES - length)
        table = _Compact(file.read(length)).read_struct()
    return [_group(entry) for entry in table.get(_ROW_GROUPS, [])]


def _group(entry: dict[int, Any]) -> GroupEntry:
    columns = []
    for chunk in entry[_COLUMNS]:
        column = chunk[_COLUMN]
        nulls = column.get(_STATISTICS, {}).get(_NULLS)
        columns.append(ColumnEntry(column[_PATH][0].decode(), column[_VALUES], column[_UNCOMPRESSED], nulls))
    group = GroupEntry(entry[_GROUP_ROWS], tuple(columns))
    if min([group.rows, *(n for c in columns for n in (c.values, c.size_bytes))]) < 0:
        raise ValueError("a row group of a negative size")
    return group


class _Compact:
    """Thrift's compact protocol, as far as any struct has it: fields by their numbers, texts as bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read_struct(self) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            # In a struct the kind of a truth value says which it is.
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return self._byte() == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._number())
        if kind in (9, 10):
            head = self._byte()
            # Short lists have their length in the head.
            size = self._number() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15) for _ in range(size)]
        if kind == 11:
            size = self._number()
            kinds = self._byte() if size else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]
        if kind == 12:
            return self.read_struct()
        raise ValueError(f"a value of kind {kind} in the footer")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise ValueError("a footer that is cut short")
        return self._data[self._at - size : self._at]

    def _number(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("a number of more than 64 bits in the footer")

    def _integer(self) -> int:
        # Zigzag: 0, -1, 1, -2, …
        number = self._number()
        return (number >> 1) ^ -(number & 1)
