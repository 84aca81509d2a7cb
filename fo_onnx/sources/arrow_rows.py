"""Rows of tables of Arrow, wherever the tables come from: columns are chosen and read, and bad rows told apart."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Generator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pyarrow as pa

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from .annotations import annotate_rows, check_ids
from .arrow_columns import ColumnReader, is_list, is_text, kind_of, missing_text
from .base import PositionalSource
from .batching import Item, ReadRows, Unreadable
from .categories import Categories
from .class_labels import read_class_names
from .columns import choose_columns, read_pandas_index
from .elements import ElementParser
from .labels import Labels, to_labels

READ_ROWS = 4096
"""Rows that are decoded at a time at least; small batches are cut from them."""
_CURE = "Mend the row, or go past such rows with on_error='skip' or on_error='record'."
_log = logging.getLogger("fo_onnx.sources")


class ArrowSource(PositionalSource):
    """The rows of tables that have one schema.

    The inputs are the columns that `choose_columns` says. A row with a null that the column's numbers or text cannot say, or
    with a list of another length than the first row's, is a bad row.
    """

    def __init__(self, schema: pa.Schema, length: int, options: DataOptions, what: str) -> None:
        """Choose the columns, and read those of ids and labels; messages call the table `what`.

        Raises:
            DataError: No columns fit; labels that are no class; nulls among labels.
        """
        self._what, self._schema = what, schema
        index = read_pandas_index(schema.metadata, schema.names)
        self._choice = choice = choose_columns(
            [(f.name, kind_of(f.type)) for f in schema], options, index.columns, what
        )
        # pandas' index is a column of ids, if there is no other.
        is_free = len(index.columns) == 1 and options.ids is None and not self._is_input(index.columns[0])
        id_column = choice.ids or (index.columns[0] if is_free else None)
        coded = [n for n in choice.inputs if choice.named and pa.types.is_dictionary(schema.field(n).type)]
        self._check_sizes({n for n in (id_column, choice.label, *coded) if n is not None})
        # Read those that are needed up front.
        ids = None if id_column is None else self._read_ids(id_column)
        if id_column is None and index.positions is not None and options.ids is None:
            ids = _ids_of_range(index.positions, length)
        labels = None if choice.label is None else self._read_labels(choice.label)
        categories = {n: self._read_categories(n) for n in coded}
        nulls = self._columns_with_nulls()
        self._readers = {
            n: ColumnReader(n, has_nulls=n in nulls, missing_text=missing_text(schema), categories=categories.get(n))
            for n in choice.inputs
        }
        super().__init__(length, options, annotate_rows(options, ids, labels))
        self._parser = ElementParser(options)

    # --- what a table must do

    @abstractmethod
    def _tables(self, start: int, rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the columns of inputs from row `start` on, at most `rows` rows at a time, each with the position of its first."""

    @abstractmethod
    def _read_column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column."""

    @abstractmethod
    def _columns_with_nulls(self) -> Collection[str]:
        """Return the names of the columns that are known to hold a null."""

    @abstractmethod
    def _reading(self, position: int) -> AbstractContextManager[None]:
        """Return what names the table in errors of reading its rows from `position` on."""

    def _check_sizes(self, whole: set[str]) -> None:
        """Refuse what would fill the memory; the columns `whole` are read at once."""

    # --- columns

    @property
    def _inputs(self) -> list[str]:
        return list(self._choice.inputs)

    def _is_input(self, name: str) -> bool:
        return self._choice.named and name in self._choice.inputs

    def _read_ids(self, name: str) -> Array | None:
        kind = self._schema.field(name).type
        if not (pa.types.is_integer(kind) or is_text(kind)):
            return None
        column = self._read_column(name)
        if column.null_count:
            return None
        try:
            return check_ids(
                column.to_numpy() if pa.types.is_integer(kind) else _to_texts(column), f"the column {name}"
            )
        except DataError:
            _log.info("the column %s of %s is not unique; rows are identified by their position", name, self._what)
            return None

    def _read_labels(self, name: str) -> Labels:
        column = self._read_column(name)
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(
                f"row {row} of {self._what} has no value (null) in the column {name}: fill it, or leave the labels out with "
                "labels=False.",
                position=row,
            )
        if pa.types.is_dictionary(column.type):
            if is_text(column.type.value_type):
                return to_labels(_to_texts(column), f"the column {name}")
            column = column.cast(column.type.value_type)
        if is_list(column.type):
            raise DataError(
                f"labels that are no class: the column {name} of {self._what} holds lists; one integer per row was "
                "expected. Give labels=."
            )
        return to_labels(column.to_numpy(), f"the column {name}", read_class_names(self._schema.metadata, name))

    def _read_categories(self, name: str) -> Categories:
        kind = self._schema.field(name).type
        column = self._read_column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        chunks = column.unify_dictionaries().chunks
        return Categories(tuple(chunks[0].dictionary.to_pylist()) if chunks else (), bool(kind.ordered))

    # --- rows

    def _head(self, n: int) -> Iterator[Item]:
        return self._decode(0, max(1, min(n, READ_ROWS)))

    def _items(self, start: int, size: int) -> Generator[Item, None, None]:
        return self._decode(start, max(size, READ_ROWS))

    def _decode(self, start: int, rows: int) -> Generator[Item, None, None]:
        for position, table in self._tables(start, rows):
            yield from self._rows(table, position)

    def _rows(self, table: pa.RecordBatch, position: int) -> Iterator[Item]:
        if self._options.input_getter is not None:
            with self._reading(position):
                elements: list[Any] = table.to_pylist()
            yield from map(self._parse, elements)
            return
        with self._reading(position):
            columns, bad = self._read_inputs(table)
        # Bad rows come between those before and after them.
        sound = np.setdiff1d(np.arange(len(table)), list(bad))
        done = 0
        for offset in [*sorted(bad), len(table)]:
            stop = int(np.searchsorted(sound, offset))
            if stop > done or not len(table):
                yield from self._sound_rows({n: a[done:stop] for n, a in columns.items()}, stop - done)
            if offset in bad:
                yield Unreadable(DataError(bad[offset]))
            done = stop

    def _read_inputs(self, table: pa.RecordBatch) -> tuple[dict[str, Array], dict[int, str]]:
        """Return the inputs of the rows that are sound in all columns, and why the others are not."""
        parts = {n: reader.read(table.column(n)) for n, reader in self._readers.items()}
        bad = {row: f"{why} of {self._what}. {_CURE}" for _, b in reversed(parts.values()) for row, why in b.items()}
        if bad:
            everywhere, rows = np.array(sorted(bad)), np.arange(len(table))
            parts = {n: (a[~np.isin(np.setdiff1d(rows, list(b)), everywhere)], b) for n, (a, b) in parts.items()}
        columns = {n: array for n, (array, _) in parts.items()}
        if not self._choice.named:
            columns = {"0": self._choice.join_unnamed(list(columns.values()))}
        return columns, bad

    def _sound_rows(self, columns: dict[str, Array], count: int) -> Iterator[Item]:
        if self._options.transform is None:
            yield ReadRows(columns, None)
            return
        rows = ({n: a[i] for n, a in columns.items()} for i in range(count))
        yield from map(self._parse, rows if self._choice.named else (row["0"] for row in rows))

    def _parse(self, element: Any) -> Item:
        item = self._parser.parse_sample(element)
        # Labels are a column, and read as one.
        return item if isinstance(item, Unreadable) else ReadRows(item.inputs, None)


def _ids_of_range(positions: range, length: int) -> Array | None:
    """Return the ids of a range of integers as an index; ``None`` if they are the positions, or not as many as rows."""
    if len(positions) != length or positions == range(length):
        return None
    return np.arange(positions.start, positions.stop, positions.step, dtype=np.int64)


def _to_texts(column: pa.ChunkedArray) -> Array:
    """Return a column of text as objects, of which equal ones are one if it is coded by a dictionary."""
    if not pa.types.is_dictionary(column.type):
        return np.array(column.to_pylist(), dtype=object)
    parts = [np.array(c.dictionary.to_pylist(), dtype=object)[c.indices.to_numpy()] for c in column.chunks]
    return np.concatenate([np.empty(0, dtype=object), *parts])
