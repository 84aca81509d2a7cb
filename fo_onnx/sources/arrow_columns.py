"""Columns of Arrow as arrays: numbers, lists of numbers, text and categories; rows that are none are named with the reason."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa

from ..contracts.batch import Array
from ..errors import DataError
from .categories import Categories, mark_categories
from .columns import ColumnKind

BadValues = dict[int, str]
"""Why rows have no usable value, by their place in the column."""
MOST_TEXT_BYTES = 2 << 30
"""What one part of a column of text may take: in numpy each text takes as much as the longest."""


def kind_of(kind: pa.DataType) -> ColumnKind:
    """Return what a column of an Arrow type holds; of categories, what they are."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if is_number(kind):
        return "number"
    if is_text(kind):
        return "text"
    return "list" if is_list(kind) and _holds_numbers(kind) else "other"


def is_number(kind: pa.DataType) -> bool:
    """Return whether a type is one of integers, floats or truth values."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _holds_numbers(kind: pa.DataType) -> bool:
    return _holds_numbers(kind.value_type) if is_list(kind) else is_number(kind)


def missing_text(schema: pa.Schema) -> Any:
    """Return what stands for missing text in a table: what pandas, if it wrote the table, reads a null as; else ``None``.

    To scikit-learn's encoders NaN and ``None`` are two categories.
    """
    if b"pandas" not in (schema.metadata or {}):
        return None
    try:
        return np.nan if int(metadata.version("pandas").split(".")[0]) >= 3 else None
    except metadata.PackageNotFoundError:
        return None


class ColumnReader:
    """Turns parts of one column into arrays, all of one dtype (text: of one kind).

    Attributes:
        shape: Of the lists in the column, decided by its first sound row.
    """

    def __init__(
        self, name: str, *, has_nulls: bool, missing_text: Any = None, categories: Categories | None = None
    ) -> None:
        """Take what is known of the whole column: whether there are nulls in it, and its categories, if they are such."""
        self.shape: tuple[int, ...] | None = None
        self._name, self._has_nulls, self._missing_text, self._categories = name, has_nulls, missing_text, categories

    def read(self, column: pa.Array) -> tuple[Array, BadValues]:
        """Return the rows that have a usable value, (n, …), and why the others have none.

        A null is NaN among numbers, and stays missing among text and categories, if it is known beforehand that there are
        some: a column of integers is one of floats then.

        Raises:
            DataError: The column holds no numbers and no text.
        """
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if is_list(column.type) and _holds_numbers(column.type):
            return self._read_lists(column)
        if not is_number(column.type) and not is_text(column.type):
            raise DataError(f"the column {self._name} holds {column.type}; numbers or text were expected.")
        # Where a null cannot be said in the column's dtype, the row is bad.
        can_miss = self._has_nulls or pa.types.is_floating(column.type)
        bad: BadValues = {}
        if column.null_count and not can_miss:
            bad = dict.fromkeys(
                np.flatnonzero(_nulls(column)).tolist(), f"it has no value (null) in the column {self._name}"
            )
            column = column.drop_null()
        array = self._read_text(column) if is_text(column.type) else self._read_numbers(column)
        if self._categories is not None:
            array = mark_categories(array, self._categories.values, ordered=self._categories.ordered)
        return array, bad

    def _read_numbers(self, column: pa.Array) -> Array:
        if self._has_nulls and not pa.types.is_floating(column.type):
            column = column.cast(pa.float64(), safe=False)
        array: Array = column.to_numpy(zero_copy_only=False)
        return array

    def _read_text(self, column: pa.Array) -> Array:
        texts = column.to_pylist()
        if not self._has_nulls:
            longest = max(map(len, texts), default=0)
            if 4 * longest * len(texts) > MOST_TEXT_BYTES:
                raise DataError(
                    f"the column {self._name} has a text of {longest} characters; {len(texts)} rows as wide as it would fill the "
                    "memory. Shorten it."
                )
            return np.array(texts, dtype=np.str_)
        return np.array([self._missing_text if text is None else text for text in texts], dtype=object)

    def _read_lists(self, column: pa.Array) -> tuple[Array, BadValues]:
        """Return lists of one shape as (n, …), level by level; `rows` has the row of each entry of a level."""
        if self.shape is None:
            self.shape = next((s for s in map(_shape_of, column) if s is not None), None)
        bad: BadValues = {}
        count, rows, shape = len(column), np.arange(len(column)), self.shape or (0,) * _depth(column.type)
        for depth, length in enumerate(shape):
            lengths = _lengths(column)
            wrong = np.flatnonzero(lengths != length)
            for i in wrong.tolist():
                bad.setdefault(int(rows[i]), self._say_what_is_wrong(int(lengths[i]), length, depth))
            if len(wrong):
                is_sound = ~np.isin(rows, list(bad))
                column, rows = column.filter(pa.array(is_sound)), rows[is_sound]
            column, rows = column.flatten(), np.repeat(rows, length)
        # What is null among floats is NaN; among integers it cannot be said.
        if column.null_count and not pa.types.is_floating(column.type):
            for row in np.unique(rows[_nulls(column)]).tolist():
                bad[row] = f"it has a null within the list in the column {self._name}"
            is_sound = ~np.isin(rows, list(bad))
            column, rows = column.filter(pa.array(is_sound)), rows[is_sound]
        array: Array = column.to_numpy(zero_copy_only=False)
        return array.reshape(count - len(bad), *shape), bad

    def _say_what_is_wrong(self, length: int, expected: int, depth: int) -> str:
        if length < 0:
            return f"it has no value (null) in the column {self._name}"
        where = "a list within it" if depth else "it"
        return (
            f"{where} has {length} values where the first row has {expected} (ragged rows), in the column {self._name}"
        )


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if is_list(kind) else 0


def _nulls(column: pa.Array) -> Array:
    nulls: Array = column.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _lengths(column: pa.Array) -> Array:
    """Return the lengths of lists, (n,); −1 for a null."""
    if pa.types.is_fixed_size_list(column.type):
        return np.where(_nulls(column), -1, column.type.list_size)
    lengths: Array = column.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    return lengths


def _shape_of(value: pa.Scalar) -> tuple[int, ...] | None:
    """Return the shape of nested lists; ``None`` if they are ragged, or there are none."""
    if not value.is_valid:
        return None
    shapes: set[tuple[int, ...] | None] = {()}
    if is_list(value.type.value_type):
        shapes = {_shape_of(inner) for inner in value.values}
    inner = next(iter(shapes)) if len(shapes) == 1 else None
    return None if inner is None else (len(value), *inner)
