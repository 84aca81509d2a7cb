"""Arrays in memory or memory-mapped: sliced, never looped over, unless a function wants to see each row."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..contracts.source import Source
from ..errors import DataError
from .annotations import RowAnnotations, annotate_rows
from .base import PositionalSource
from .batching import Item, ReadRows
from .class_labels import names_of_feature
from .elements import ElementParser
from .fingerprint import fingerprint
from .label_finder import find_label_name
from .labels import to_labels
from .nested import Convert, as_array, common_length, leaves, make_sliceable, map_leaves, named_leaves, parts_of
from .sequences import RowSource

ID_KEYS = ("id", "ids")
"""Under which a dict of columns, or an ``.npz``, may hold the ids of its rows."""
WHOLE_BYTES = 16 << 20
"""Arrays up to this size are digested whole, which takes hundredths of a second; larger ones by a sample of rows."""


class ArraySource(PositionalSource):
    """Slices of arrays (n, …) by name, of equal length; the user's functions are not applied."""

    in_memory = is_sliced = True

    def __init__(self, inputs: dict[str, Array], annotations: RowAnnotations, options: DataOptions) -> None:
        super().__init__(common_length(inputs.items(), None), options, annotations)
        self._rows = ReadRows(inputs, None).cut(0, self.length)

    def _items(self, start: int, size: int) -> Generator[Item, None, None]:
        yield self._rows.cut(start, self.length)

    def _items_at(self, positions: Iterable[int]) -> Iterator[Item]:
        return (self._rows.cut(i, i + 1) for i in positions)

    def fingerprint(self) -> str:
        if sum(a.nbytes for a in self._rows.inputs.values()) > WHOLE_BYTES:
            return super().fingerprint()
        return fingerprint(self.length, [self._rows], self._annotations)


def is_array(value: Any) -> bool:
    """Return whether `value` is an array of rows, or says that it can be made one."""
    if isinstance(value, type) or not (hasattr(value, "__array_interface__") or hasattr(type(value), "__array__")):
        return False
    return len(getattr(value, "shape", (1,))) >= 1 or isinstance(value, np.ndarray)


def is_arrays(data: Any) -> bool:
    """Return whether `data` is an array, a dict of columns, or a tuple (nested too) of arrays; or one of lists, which are columns."""
    if is_array(data) or isinstance(data, np.generic):
        return True
    parts = parts_of(data)
    if parts is None or isinstance(data, list) or not parts.items:
        return False
    if isinstance(data, Mapping) or _is_lists(data):
        return True
    return any(is_array(leaf) for leaf in leaves(data)) and all(_is_column(part) for _, part in parts.items)


def _is_lists(data: Any) -> bool:
    """Return whether `data` is a tuple of lists of one length, of texts or rows and of labels; lists of numbers are rows."""
    is_tuple = isinstance(data, tuple) and len(data) > 1 and all(isinstance(part, list) and part for part in data)
    if not is_tuple or len({len(part) for part in data}) > 1:
        return False
    return isinstance(data[0][0], str | list) or hasattr(data[0][0], "shape")


def _is_column(value: Any) -> bool:
    if value is None or is_array(value) or isinstance(value, list):
        return True
    parts = parts_of(value)
    return parts is not None and bool(parts.items) and all(_is_column(part) for _, part in parts.items)


def open_arrays(data: Any, options: DataOptions, convert: Convert = as_array) -> Source:
    """Open the rows of an array (n, …), or of a tuple or dict (nested too) of arrays of equal length.

    With `input_getter` or `transform` rows are read one by one.

    Raises:
        DataError: No axis, unequal lengths, a dtype that holds no numbers, labels that are no class.
    """
    # Ids, then labels, then what is left.
    data, options = _take_ids(data, options)
    columns = map_leaves(data, lambda leaf: _to_column(leaf, convert), lists_are_leaves=True)
    parser = ElementParser(options, convert)
    values = parser.take_labels(columns)
    labels = None
    if values is not None and options.labels is None:
        labels = to_labels(values, "the data's labels", _names_of_column(data, options))
    annotations = annotate_rows(options, labels=labels)
    if options.input_getter is None and options.transform is None:
        inputs = parser.take_inputs(columns)
        common_length(inputs.items(), values)
        return ArraySource(inputs, annotations, options)
    # The user's functions see one row at a time.
    length = common_length(named_leaves(columns), None)
    return RowSource(
        lambda position: map_leaves(columns, lambda column: column[position]), length, options, annotations, convert
    )


def _names_of_column(data: Any, options: DataOptions) -> tuple[str, ...] | None:
    """Return what the labels in a dict of columns count, if one of Hugging Face's says it."""
    label = find_label_name(list(data), options) if isinstance(data, Mapping) else None
    return None if label is None else names_of_feature(getattr(data[label], "features", None))


def _take_ids(data: Any, options: DataOptions) -> tuple[Any, DataOptions]:
    """Take the column of ids out of a dict of columns, unless it is one of the model's inputs or ids were given."""
    if not isinstance(data, Mapping) or options.ids is not None:
        return data, options
    signature = options.signature
    inputs = () if signature is None else (*signature.required, *signature.optional)
    key = next((k for k in ID_KEYS if k in data and k not in inputs), None)
    if key is None or len(data) == 1:
        return data, options
    ids = data[key] if isinstance(data[key], list) else np.asarray(data[key])
    return {k: v for k, v in data.items() if k != key}, replace(options, ids=ids)


def _to_column(value: Any, convert: Convert) -> Any:
    if not isinstance(value, list) or parts_of(value) is None:
        return make_sliceable(value, convert)
    rows = [convert(row) for row in value]
    try:
        return np.stack(rows)
    except ValueError as err:
        shapes = ", ".join(sorted({str(r.shape) for r in rows})[:4])
        raise DataError(
            f"a list of {len(rows)} rows has rows of the shapes {shapes} (ragged rows); equal shapes were expected."
        ) from err
