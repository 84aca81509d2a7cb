"""Rows of a Parquet file, streamed by row groups; the whole file is never in memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from ..guards.limits import check_regular, check_unfolding
from ..guards.parquet_footer import GroupEntry, read_groups
from .annotations import annotate_rows, check_ids
from .base import PositionalSource
from .batching import Item, Rows, Unreadable
from .class_labels import read_class_names
from .elements import ElementParser
from .files import reading_data
from .label_finder import find_label_name
from .labels import Labels, to_labels

ID_COLUMN = "id"
READ_ROWS = 4096
"""Rows that are decoded at a time at least; small batches are cut from them."""
_log = logging.getLogger("fo_onnx.sources")


class ParquetSource(PositionalSource):
    """The rows of a Parquet file.

    The inputs are the columns that the model's signature names; else the one list column; else all numeric columns side
    by side, in the file's order. Columns called like labels, and ``id``, are taken as such.
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        """Read the columns of ids and labels, and no row.

        Raises:
            DataError: `path` is no sound Parquet file, or no columns fit; nulls in a column that is needed.
        """
        self._path = path
        with self._reading(), self._open() as file:
            schema = file.schema_arrow
            groups = read_groups(path, DataError)
            self._groups = [group.rows for group in groups]
            rows = sum(self._groups)
            if rows != file.metadata.num_rows:
                raise ValueError(f"{rows} rows in its row groups, {file.metadata.num_rows} in all")
            # Choose the columns. An input_getter sees every column, those of ids and labels too.
            required = options.signature.required if options.signature is not None else ()
            label = find_label_name(schema.names, options)
            self._named = bool(required) and all(n in schema.names for n in required)
            self._inputs = self._choose_inputs(schema, label, options)
            reserved = [] if options.input_getter is not None else self._inputs
            id_column = ID_COLUMN if ID_COLUMN in schema.names and ID_COLUMN not in reserved else None
            if label in reserved or options.labels is not None:
                label = None
            annotating = {n for n in (id_column, label) if n is not None}
            counts = Counter(schema.names)
            if double := next((n for n in (*self._inputs, *sorted(annotating)) if counts[n] > 1), None):
                raise DataError(
                    f"{path} has {counts[double]} columns called {double}, so that which one is meant cannot be determined. "
                    "Rename them."
                )
            self._check_sizes(groups, annotating)
            # Read those that are needed up front.
            ids = None if id_column is None else self._read_ids(schema)
            labels = None if label is None else self._read_labels(label, schema)
            super().__init__(rows, options, annotate_rows(options, ids, labels))
        self._parser = ElementParser(options)

    def _reading(self, position: int | None = None) -> AbstractContextManager[None]:
        doing = "Reading" if position is None else f"Reading the rows from {position} on of"
        return reading_data(self._path, doing, position)

    def _open(self, as_dictionary: list[str] | None = None) -> pq.ParquetFile:
        check_regular(self._path, DataError)
        return pq.ParquetFile(self._path, page_checksum_verification=True, read_dictionary=as_dictionary)

    # --- columns

    def _choose_inputs(self, schema: pa.Schema, label: str | None, options: DataOptions) -> list[str]:
        signature = options.signature
        if options.input_getter is not None:
            return list(schema.names)
        if self._named and signature is not None:
            return [n for n in (*signature.required, *signature.optional) if n in schema.names]
        rest = [f for f in schema if f.name not in (label, ID_COLUMN)]
        lists = [f.name for f in rest if _is_list(f.type)]
        if len(lists) > 1:
            raise DataError(
                f"{self._path} has several list columns ({', '.join(lists)}), and none is called like the model's "
                f"inputs{'' if signature is None else ' (' + ', '.join(signature.required) + ')'}. Rename them, or "
                "build the inputs with input_getter=."
            )
        chosen = lists or [f.name for f in rest if _is_number(f.type)]
        if not chosen:
            columns = ", ".join(f"{f.name} ({f.type})" for f in schema) or "no columns"
            raise DataError(f"{self._path} has no column of numbers or of lists of numbers; it has {columns}.")
        left_out = [f.name for f in rest if f.name not in chosen]
        if left_out:
            _log.info("columns of %s that are no inputs, and left out: %s", self._path, ", ".join(left_out))
        return chosen

    def _check_sizes(self, groups: list[GroupEntry], annotating: set[str]) -> None:
        """Refuse a file whose columns take much more memory than the file has bytes; `annotating` ones are read whole."""
        file_bytes = self._path.stat().st_size
        whole_bytes = 0
        for number, group in enumerate(groups):
            part_bytes = 0
            for column in group.columns:
                if column.name in annotating:
                    whole_bytes += max(8 * column.values, column.size_bytes)
                elif column.name in self._inputs and group.rows:
                    share = min(1.0, READ_ROWS / group.rows)
                    part_bytes += int(max(8 * column.values * share, column.size_bytes))
            check_unfolding(self._path, part_bytes, file_bytes, DataError, f"row group {number} of a file")
        check_unfolding(self._path, whole_bytes, file_bytes, DataError, "the columns of ids and labels of a file")

    def _read_ids(self, schema: pa.Schema) -> Array | None:
        kind = schema.field(ID_COLUMN).type
        if not (pa.types.is_integer(kind) or _is_text(kind)):
            return None
        column = self._read_column(ID_COLUMN, kind)
        if column.null_count:
            return None
        try:
            return check_ids(column.to_numpy() if pa.types.is_integer(kind) else _to_texts(column), "the column id")
        except DataError:
            _log.info("the column id of %s is not unique; rows are identified by their position", self._path)
            return None

    def _read_labels(self, name: str, schema: pa.Schema) -> Labels:
        column = self._read_column(name, schema.field(name).type)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(
                f"row {row} of {self._path} has no value (null) in the column {name}: fill it, or leave the labels out with "
                "labels=False.",
                position=row,
            )
        if pa.types.is_dictionary(column.type):
            if _is_text(column.type.value_type):
                return to_labels(_to_texts(column), f"the column {name}")
            column = column.cast(column.type.value_type)
        if _is_list(column.type, nested=True):
            raise DataError(
                f"labels that are no class: the column {name} of {self._path} holds lists; one integer per row was "
                "expected. Give labels=."
            )
        return to_labels(column.to_numpy(), f"the column {name}", read_class_names(schema.metadata, name))

    def _read_column(self, name: str, kind: pa.DataType) -> pa.ChunkedArray:
        """Return a whole column; of text as a dictionary, which takes no more memory than the file has text."""
        with self._open(as_dictionary=[name] if _is_text(kind) else None) as file:
            return file.read(columns=[name]).column(name)

    # --- rows

    def _head(self, n: int) -> Iterator[Item]:
        return self._decode(0, max(1, min(n, READ_ROWS)))

    def _items(self, start: int, size: int) -> Generator[Item, None, None]:
        return self._decode(start, max(size, READ_ROWS))

    def _items_at(self, positions: Iterable[int]) -> Iterator[Item]:
        """Yield the rows at `positions`; each row group is read once, and those without any are not."""
        ends = np.cumsum(self._groups)
        # The group that is being read, and its table that was decoded last, with the position of that one's first row.
        group, first, table = -1, 0, None
        for position in positions:
            if group != (holder := int(np.searchsorted(ends, position, "right"))):
                group, table, tables = holder, None, self._tables(position, READ_ROWS)
            while table is None or first + len(table) <= position:
                first, table = next(tables)
            yield next(self._rows(table.slice(position - first, 1), position))

    def _decode(self, start: int, rows: int) -> Generator[Item, None, None]:
        for position, table in self._tables(start, rows):
            yield from self._rows(table, position)

    def _tables(self, start: int, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield tables of at most `rows` rows, each with the position of its first; earlier row groups are not read."""
        # Row groups that end before the start.
        position, group = 0, 0
        while group < len(self._groups) and position + self._groups[group] <= start:
            position += self._groups[group]
            group += 1
        with self._reading(position):
            file = self._open()
        with file:
            with self._reading(position):
                tables = file.iter_batches(
                    rows, row_groups=list(range(group, len(self._groups))), columns=self._inputs, use_threads=False
                )
            while position < self.length:
                with self._reading(position):
                    table = next(tables)
                stop = position + len(table)
                if stop > start:
                    offset = max(0, start - position)
                    yield position + offset, table.slice(offset, min(stop, self.length) - position - offset)
                position = stop

    def _rows(self, table: pa.RecordBatch, position: int) -> Iterator[Item]:
        if self._options.input_getter is not None:
            with self._reading(position):
                elements: Iterable[Any] = table.to_pylist()
        else:
            with self._reading(position):
                columns = {n: self._to_array(table.column(n), n, position) for n in self._inputs}
            if not self._named:
                arrays = list(columns.values())
                columns = {"0": arrays[0] if len(arrays) == 1 and arrays[0].ndim > 1 else np.stack(arrays, axis=1)}
            if self._options.transform is None:
                yield Rows(columns, None)
                return
            rows = ({n: a[i] for n, a in columns.items()} for i in range(len(table)))
            elements = rows if self._named else (row["0"] for row in rows)
        for element in elements:
            item = self._parser.parse_sample(element)
            # Labels are a column, and read as one.
            yield item if isinstance(item, Unreadable) else Rows(item.inputs, None)

    def _to_array(self, column: pa.Array, name: str, position: int) -> Array:
        """Return a column of numbers, or of lists of equal length, nested too, as (n, …)."""
        self._refuse_nulls(column, name, position)
        shape: list[int] = [len(column)]
        while _is_list(column.type, nested=True):
            shape.append(self._list_length(column, name, position))
            column = column.flatten()
            if column.null_count:
                inner = column.is_null().to_pylist().index(True)
                row = position + inner // max(1, int(np.prod(shape[1:])))
                raise DataError(
                    f"row {row} of {self._path} has a null within the list in the column {name}; fill it.", position=row
                )
        if not _is_number(column.type):
            raise DataError(f"the column {name} of {self._path} holds {column.type}; numbers were expected.")
        array: Array = column.to_numpy(zero_copy_only=False).reshape(shape)
        return array

    def _list_length(self, column: pa.Array, name: str, position: int) -> int:
        if pa.types.is_fixed_size_list(column.type):
            return int(column.type.list_size)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        odd = np.flatnonzero(lengths != lengths[:1])
        if len(odd):
            row = position + int(odd[0])
            raise DataError(
                f"row {row} of {self._path} (or a list within it) has {lengths[odd[0]]} values in the column {name} "
                f"where the others have {lengths[0]} (ragged rows); lists of one length were expected.",
                position=row,
            )
        return int(lengths[0]) if len(lengths) else 0

    def _refuse_nulls(self, column: pa.Array | pa.ChunkedArray, name: str, position: int) -> None:
        if column.null_count:
            row = position + column.is_null().to_pylist().index(True)
            raise DataError(
                f"row {row} of {self._path} has no value (null) in the column {name}; fill it or leave the row out.",
                position=row,
            )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _to_texts(column: pa.ChunkedArray) -> Array:
    """Return a dictionary-coded column of text as objects, of which equal ones are one."""
    parts = [np.array(c.dictionary.to_pylist(), dtype=object)[c.indices.to_numpy()] for c in column.chunks]
    return np.concatenate([np.empty(0, dtype=object), *parts])


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_list(kind: Any, *, nested: bool = False) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return nested or _is_number(kind.value_type) or _is_list(kind.value_type)
