"""Rows of a Parquet file, streamed by row groups; the whole file is never in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..contracts.options import DataOptions
from ..errors import DataError
from ..guards.limits import check_regular, check_unfolding
from ..guards.parquet_footer import read_groups
from .arrow_columns import is_text
from .arrow_rows import READ_ROWS, ArrowSource
from .batching import Item
from .files import reading_data


class ParquetSource(ArrowSource):
    """The rows of a Parquet file. Its footer is read without Arrow: `fo_onnx.guards.parquet_footer` says why."""

    def __init__(self, path: Path, options: DataOptions) -> None:
        """Read the columns of ids and labels, and no row.

        Raises:
            DataError: `path` is no sound Parquet file, or no columns fit; nulls among labels.
        """
        self._path = path
        with reading_data(path), self._open() as file:
            self._entries = read_groups(path, DataError)
            self._groups = [group.rows for group in self._entries]
            rows = sum(self._groups)
            if rows != file.metadata.num_rows:
                raise ValueError(f"{rows} rows in its row groups, {file.metadata.num_rows} in all")
            super().__init__(file.schema_arrow, rows, options, str(path))

    def _reading(self, position: int) -> AbstractContextManager[None]:
        return reading_data(self._path, f"Reading the rows from {position} on of", position)

    def _open(self, as_dictionary: list[str] | None = None) -> pq.ParquetFile:
        check_regular(self._path, DataError)
        return pq.ParquetFile(self._path, page_checksum_verification=True, read_dictionary=as_dictionary)

    def _check_sizes(self, whole: set[str]) -> None:
        """Refuse a file whose columns take much more memory than the file has bytes."""
        file_bytes = self._path.stat().st_size
        whole_bytes = 0
        for number, group in enumerate(self._entries):
            part_bytes = 0
            for column in group.columns:
                if column.name in whole:
                    whole_bytes += max(8 * column.values, column.size_bytes)
                elif column.name in self._choice.inputs and group.rows:
                    share = min(1.0, READ_ROWS / group.rows)
                    part_bytes += int(max(8 * column.values * share, column.size_bytes))
            check_unfolding(self._path, part_bytes, file_bytes, DataError, f"row group {number} of a file")
        check_unfolding(self._path, whole_bytes, file_bytes, DataError, "the columns of ids and labels of a file")

    def _read_column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column; of text as a dictionary, which takes no more memory than the file has text."""
        with self._open(as_dictionary=[name] if is_text(self._schema.field(name).type) else None) as file:
            return file.read(columns=[name]).column(name)

    def _columns_with_nulls(self) -> Collection[str]:
        return {column.name for group in self._entries for column in group.columns if column.nulls}

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
