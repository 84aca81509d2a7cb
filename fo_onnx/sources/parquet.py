"""Rows of a Parquet file, streamed by row groups; the whole file is never in memory."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..limits import check_regular, check_unfolding
from ..options import DataOptions
from ..parquet_footer import GroupEntry, read_groups
from ..protocols import Array, Batch
from .assembly import Assembly, Item, Rows, Unreadable
from .beside import Ids, beside, given_ids, preprocessing, spread
from .file_errors import naming
from .fingerprints import fingerprint
from .labels import Labels, known_labels
from .structure import LABEL_KEYS, Plan, Structure

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ID_COLUMN = "id"
READ_ROWS = 4096
"""Rows that are decoded at a time at least; small batches are cut from them."""
_log = logging.getLogger("fo_onnx.sources")


class ParquetSource:
    """The rows of a Parquet file.

    The inputs are the columns that the model's signature names; else the one list column; else all numeric columns side
    by side, in the file's order. Columns called like labels, and ``id``, are taken as such.

    Args:
        path: The file.
        options: How rows are read.

    Raises:
        DataError: It is no sound Parquet file, or no columns fit; nulls in a column that is needed.
    """

    in_memory = False
    sequential = False
    columns_named = False

    def __init__(self, path: Path, options: DataOptions) -> None:
        self._path = path
        self._options = options
        with self._reading(), self._open() as file:
            schema = file.schema_arrow
            groups = read_groups(path, DataError)
            self._groups = [group.rows for group in groups]
            rows = sum(self._groups)
            if rows != file.metadata.num_rows:
                raise DataError(
                    f"Reading {path}: {rows} rows in its row groups, {file.metadata.num_rows} in all. It is damaged; write it "
                    "again."
                )
            required = options.signature.required if options.signature is not None else ()
            label = next((k for k in LABEL_KEYS if k in schema.names and k not in required), None)
            self._named = bool(required) and all(n in schema.names for n in required)
            self._inputs = self._choose(schema, label)
            # An input_getter sees every column, those of ids and labels too.
            taken = [] if options.input_getter is not None else self._inputs
            id_column = ID_COLUMN if ID_COLUMN in schema.names and ID_COLUMN not in taken else None
            if label is not None and (label in taken or options.labels is not None):
                label = None
            self._refuse_doubles(schema, {*self._inputs, id_column, label})
            self._check_sizes(groups, {n for n in (id_column, label) if n is not None})
            ids = None if id_column is None else self._ids(schema)
            labels = None if label is None else self._labels(label, schema.field(label).type)
            self._beside = beside(options, ids, labels)
            self._beside.check_length(rows, options.limit)
        self.length: int = rows if options.limit is None else min(rows, options.limit)
        self.id_kind = self._beside.ids.kind
        self.has_labels = self._beside.labels is not None
        self.class_names = None if self._beside.labels is None else self._beside.labels.class_names
        self.preprocessing = preprocessing(options)
        self._structure = Structure(options)
        self._by_row = options.transform is not None or options.input_getter is not None
        self._plan: Plan | None = None
        self._first: Rows | None = None
        self._peeked: tuple[int, Batch] | None = None

    def _reading(self, position: int | None = None) -> AbstractContextManager[None]:
        doing = "Reading" if position is None else f"Reading the rows from {position} on of"
        return naming(self._path, doing, position)

    def _check_sizes(self, groups: list[GroupEntry], beside: set[str]) -> None:
        """Refuses a file whose columns take much more memory than the file has bytes.

        Args:
            groups: What the file's footer says.
            beside: Columns that are read whole; of others a few thousand rows are in memory.
        """
        file_bytes = self._path.stat().st_size
        whole = 0
        for number, group in enumerate(groups):
            part = 0
            for column in group.columns:
                if column.name in beside:
                    whole += max(8 * column.values, column.size_bytes)
                elif column.name in self._inputs and group.rows:
                    share = min(1.0, READ_ROWS / group.rows)
                    part += int(max(8 * column.values * share, column.size_bytes))
            check_unfolding(self._path, part, file_bytes, DataError, f"row group {number} of a file")
        check_unfolding(self._path, whole, file_bytes, DataError, "the columns of ids and labels of a file")

    # --- columns

    def _refuse_doubles(self, schema: pa.Schema, used: set[str | None]) -> None:
        counts = Counter(schema.names)
        if double := next((name for name in schema.names if counts[name] > 1 and name in used), None):
            raise DataError(
                f"{self._path} has {counts[double]} columns called {double}, so that which one is meant cannot be told. Rename "
                "them."
            )

    def _choose(self, schema: pa.Schema, label: str | None) -> list[str]:
        signature = self._options.signature
        if self._options.input_getter is not None:
            return list(schema.names)
        if self._named and signature is not None:
            return [n for n in (*signature.required, *signature.optional) if n in schema.names]
        rest = [f for f in schema if f.name not in (label, ID_COLUMN)]
        lists = [f.name for f in rest if _is_list(f.type)]
        numbers = [f.name for f in rest if _is_number(f.type)]
        if len(lists) > 1:
            raise DataError(
                f"{self._path} has several list columns ({', '.join(lists)}), and none is called like the model's "
                f"inputs{'' if signature is None else ' (' + ', '.join(signature.required) + ')'}. Rename them, or "
                "build the inputs with input_getter=."
            )
        chosen = lists or numbers
        if not chosen:
            raise DataError(f"{self._path} has no column of numbers or of lists of numbers; it has {_listed(schema)}.")
        left = [f.name for f in rest if f.name not in chosen]
        if left:
            _log.info("columns of %s that are no inputs, and left out: %s", self._path, ", ".join(left))
        return chosen

    def _ids(self, schema: pa.Schema) -> Ids | None:
        import pyarrow as pa

        kind = schema.field(ID_COLUMN).type
        if not (pa.types.is_integer(kind) or _is_text(kind)):
            return None
        column = self._column(ID_COLUMN, kind)
        if column.null_count:
            return None
        try:
            return given_ids(
                column.to_numpy() if pa.types.is_integer(kind) else _texts(column).tolist(), "the column id"
            )
        except DataError:
            _log.info("the column id of %s is not unique; rows are told by their position", self._path)
            return None

    def _labels(self, name: str, kind: pa.DataType) -> Labels:
        import pyarrow as pa

        column = self._column(name, kind)
        self._refuse_nulls(column, name, 0)
        if pa.types.is_dictionary(column.type):
            if _is_text(column.type.value_type):
                return known_labels(_texts(column), f"the column {name}")
            column = column.cast(column.type.value_type)
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            raise DataError(
                f"labels that are no class: the column {name} of {self._path} holds lists; one integer per row was "
                "expected. Give labels=."
            )
        return known_labels(column.to_numpy(), f"the column {name}")

    def _column(self, name: str, kind: pa.DataType) -> pa.ChunkedArray:
        """A whole column; of text as a dictionary, which takes no more memory than the file has text."""
        with self._open(as_dictionary=[name] if _is_text(kind) else None) as file:
            return file.read(columns=[name]).column(name)

    def _refuse_nulls(self, column: pa.Array | pa.ChunkedArray, name: str, position: int) -> None:
        if column.null_count:
            row = position + column.is_null().to_pylist().index(True)
            raise DataError(
                f"row {row} of {self._path} has no value (null) in the column {name}; fill it or leave the row out.",
                position=row,
            )

    # --- rows

    def _open(self, as_dictionary: list[str] | None = None) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        check_regular(self._path, DataError)
        return pq.ParquetFile(self._path, page_checksum_verification=True, read_dictionary=as_dictionary)

    def _tables(self, start: int, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Record batches of at most `rows` rows, each with the position of its first; earlier groups are not read."""
        skipped, group = 0, 0
        while group < len(self._groups) and skipped + self._groups[group] <= start:
            skipped += self._groups[group]
            group += 1
        position = skipped
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

    def _items(self, start: int, rows: int = READ_ROWS) -> Iterator[Item]:
        for position, table in self._tables(start, rows):
            yield from self._rows(table, position)

    def _rows(self, table: pa.RecordBatch, position: int) -> Iterator[Item]:
        if self._options.input_getter is not None:
            with self._reading(position):
                elements = table.to_pylist()
            for element in elements:
                yield self._sample(element)
            return
        with self._reading(position):
            columns = {n: self._array(table.column(n), n, position) for n in self._inputs}
        if not self._named:
            arrays = list(columns.values())
            columns = {"0": arrays[0] if len(arrays) == 1 and arrays[0].ndim > 1 else np.stack(arrays, axis=1)}
        if not self._by_row:
            yield Rows(columns, None)
            return
        lone = not self._named
        for i in range(len(table)):
            yield self._sample(columns["0"][i] if lone else {n: a[i] for n, a in columns.items()})

    def _sample(self, element: Any) -> Item:
        try:
            self._plan = self._plan or self._structure.plan(element, batched=False)
        except Exception as err:
            return Unreadable(err)
        item = self._structure.sample(element, self._plan)
        # Labels are a column, and read as one.
        return item if isinstance(item, Unreadable) else Rows(item.inputs, None)

    def _array(self, column: pa.Array, name: str, position: int) -> Array:
        self._refuse_nulls(column, name, position)
        shape: list[int] = [len(column)]
        while _is_list(column.type, nested=True):
            shape.append(self._width(column, name, position))
            column = column.flatten()
            if column.null_count:
                inner = column.is_null().to_pylist().index(True)
                row = position + inner // max(1, int(np.prod(shape[1:])))
                raise DataError(
                    f"row {row} of {self._path} has a null within the list in the column {name}; fill it.", position=row
                )
        if not _is_number(column.type):
            raise DataError(f"the column {name} of {self._path} holds {column.type}; numbers were expected.")
        values = column.to_numpy(zero_copy_only=False)
        array: Array = values.reshape(shape)
        return array

    def _width(self, column: pa.Array, name: str, position: int) -> int:
        import pyarrow as pa

        if pa.types.is_fixed_size_list(column.type):
            return int(column.type.list_size)
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        widths = np.unique(lengths)
        if len(widths) > 1:
            odd = int(np.flatnonzero(lengths != lengths[0])[0])
            raise DataError(
                f"row {position + odd} of {self._path} (or a list within it) has {lengths[odd]} values in the column "
                f"{name} where the others have {lengths[0]} (ragged rows); lists of one length were expected.",
                position=position + odd,
            )
        return int(widths[0]) if len(widths) else 0

    @property
    def _assembly(self) -> Assembly:
        if self._first is None and self.length:
            for item in self._items(0, 64):
                if isinstance(item, Rows):
                    self._first = item.cut(0, 1)
                    break
                if self._options.on_error == "fail":
                    break
        return Assembly(self._beside, self._options.on_error, self._first)

    def peek(self, n: int) -> Batch:
        """See `fo_onnx.protocols.Source`."""
        if self._peeked is None or self._peeked[0] != n:
            self._peeked = n, self._assembly.peek(self._items(0, max(1, min(n, READ_ROWS))), n)
        return self._peeked[1]

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`. Row groups before `start` are not read."""
        yield from self._assembly.batches(self._items(start, max(size, READ_ROWS)), size, position=start)

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """See `fo_onnx.protocols.Source`."""
        return self._beside.between(start, stop)

    def fingerprint(self) -> str:
        """See `fo_onnx.protocols.Source`."""
        return fingerprint(self.length, self._sampled(spread(self.length)), self._beside)

    def _sampled(self, positions: Sequence[int]) -> Iterator[Item]:
        """The rows at `positions`, which ascend; each row group is read once, and those without any are not."""
        ends = np.cumsum(self._groups)
        group, first, table = -1, 0, None
        for position in positions:
            if group != (holder := int(np.searchsorted(ends, position, "right"))):
                group, table, tables = holder, None, self._tables(position, READ_ROWS)
            while table is None or first + len(table) <= position:
                first, table = next(tables)
            yield next(self._rows(table.slice(position - first, 1), position))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _texts(column: pa.ChunkedArray) -> Array:
    """A dictionary-coded column of text as objects, of which equal ones are one."""
    parts = [np.array(c.dictionary.to_pylist(), dtype=object)[c.indices.to_numpy()] for c in column.chunks]
    return np.concatenate([np.empty(0, dtype=object), *parts])


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_list(kind: Any, *, nested: bool = False) -> bool:
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return False
    return nested or _is_number(kind.value_type) or _is_list(kind.value_type)


def _listed(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name} ({f.type})" for f in schema) or "no columns"
