"""Rows of an Arrow table in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pyarrow as pa

from ..contracts.options import DataOptions
from .arrays import WHOLE_BYTES
from .arrow_rows import READ_ROWS, ArrowSource
from .batching import Item
from .fingerprint import fingerprint


class TableSource(ArrowSource):
    """The rows of an Arrow table; its columns are chosen and read as those of a Parquet file."""

    in_memory = is_sliced = True

    def __init__(self, table: pa.Table, options: DataOptions) -> None:
        """Take a table; see `ArrowSource`."""
        self._table = table
        super().__init__(table.schema, len(table), options, "the data frame")

    def fingerprint(self) -> str:
        if self._table.nbytes > WHOLE_BYTES:
            return super().fingerprint()
        return fingerprint(self.length, self._items(0, READ_ROWS), self._annotations)

    def _reading(self, position: int) -> AbstractContextManager[None]:
        return nullcontext()

    def _read_column(self, name: str) -> pa.ChunkedArray:
        return self._table.column(name)

    def _columns_with_nulls(self) -> Collection[str]:
        columns = zip(self._table.column_names, self._table.columns, strict=True)
        return {name for name, column in columns if column.null_count}

    def _items_at(self, positions: Iterable[int]) -> Iterator[Item]:
        for position in positions:
            (row,) = self._table.select(self._inputs).slice(position, 1).to_batches()
            yield from self._rows(row, position)

    def _tables(self, start: int, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        chosen = self._table.select(self._inputs).slice(start, self.length - start)
        for part in chosen.to_batches(max_chunksize=rows):
            yield start, part
            start += len(part)
