"""Arrays in memory or memory-mapped: sliced, never looped over, unless a function wants to see each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..options import DataOptions
from ..protocols import Array, Batch, Source
from .assembly import Rows
from .beside import Beside, beside, spread
from .fingerprints import fingerprint
from .labels import known_labels
from .rows import RowSource
from .structure import Structure, common_length
from .tree import Convert, as_array, leaves, map_leaves, members, sliceable

ID_KEYS = ("id", "ids")
"""Under which a dict of columns, or an ``.npz``, may hold the ids of its rows."""
WHOLE_BYTES = 16 << 20
"""Arrays up to this size are digested whole, which takes some hundredths of a second; larger ones by a sample of rows."""


class ArraySource:
    """Slices of arrays.

    Args:
        inputs: Arrays (n, …) by name, of equal length.
        beside: Ids and labels.
        limit: Only so many rows are taken.
    """

    in_memory = True
    sequential = False
    columns_named = False

    def __init__(self, inputs: dict[str, Array], beside: Beside, limit: int | None = None) -> None:
        length = common_length(inputs, None)
        beside.check_length(length, limit)
        self.length: int = length if limit is None else min(length, limit)
        self.id_kind = beside.ids.kind
        self.has_labels = beside.labels is not None
        self.class_names = None if beside.labels is None else beside.labels.class_names
        self.preprocessing: dict[str, Any] = {}
        self._inputs = inputs
        self._beside = beside

    def _batch(self, begin: int, stop: int) -> Batch:
        labels = self._beside.labels
        return Batch(
            self._beside.ids.between(begin, stop),
            {name: a[begin:stop] for name, a in self._inputs.items()},
            None if labels is None else labels.values[begin:stop],
            begin,
        )

    def peek(self, n: int) -> Batch:
        """See `fo_onnx.protocols.Source`."""
        return self._batch(0, min(max(n, 0), self.length))

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`."""
        begin = start
        while begin < self.length:
            stop = min(self.length, (begin // size + 1) * size)
            yield self._batch(begin, stop)
            begin = stop

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """See `fo_onnx.protocols.Source`."""
        return self._beside.between(start, stop)

    def fingerprint(self) -> str:
        """See `fo_onnx.protocols.Source`."""
        size_bytes = sum(a[: self.length].nbytes for a in self._inputs.values())
        whole = size_bytes <= WHOLE_BYTES
        parts = [slice(0, self.length)] if whole else [slice(i, i + 1) for i in spread(self.length)]
        rows = (Rows({k: a[part] for k, a in self._inputs.items()}, None) for part in parts)
        shapes = [Rows({k: a[:0] for k, a in self._inputs.items()}, None)]
        return fingerprint(self.length, [*shapes, *rows], self._beside)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of rows, or says that it can be made one."""
    if isinstance(value, type) or not (hasattr(value, "__array_interface__") or hasattr(type(value), "__array__")):
        return False
    return len(getattr(value, "shape", (1,))) >= 1 or isinstance(value, np.ndarray)


def is_arrays(data: Any) -> bool:
    """Whether `data` is an array, a dict of columns, or a tuple (nested too) of arrays."""
    if is_array(data) or isinstance(data, np.generic):
        return True
    parts = members(data)
    if parts is None or isinstance(data, list) or not parts[1]:
        return False
    if isinstance(data, Mapping):
        return True
    return any(is_array(leaf) for leaf in leaves(data)) and all(_is_column(v) for _, v in parts[1])


def _is_column(value: Any) -> bool:
    if value is None or is_array(value) or isinstance(value, list):
        return True
    parts = members(value)
    return parts is not None and bool(parts[1]) and all(_is_column(v) for _, v in parts[1])


def open_arrays(data: Any, options: DataOptions, convert: Convert = as_array) -> Source:
    """The rows of an array, or of a tuple or dict (nested too) of arrays.

    Args:
        data: Arrays (n, …), of equal length.
        options: How rows are read. With `input_getter` or `transform` rows are read one by one.
        convert: Makes an array of a leaf.

    Raises:
        DataError: No axis, unequal lengths, a dtype that holds no numbers, labels that are no class.
    """
    data, options = _own_ids(data, options)
    columns = map_leaves(data, lambda leaf: _column(leaf, convert), lists_are_leaves=True)
    structure = Structure(options, convert)
    found = structure.label_of(columns)
    labels = None if found is None or options.labels is not None else known_labels(found, "the data's labels")
    if options.input_getter is None and options.transform is None:
        inputs = structure.whole(columns)
        common_length(inputs, found)
        return ArraySource(inputs, beside(options, labels=labels), options.limit)
    length = common_length({str(i): a for i, a in enumerate(leaves(columns))}, None)

    def read(position: int) -> Any:
        return map_leaves(columns, lambda column: column[position])

    return RowSource(read, length, options, structure, beside(options, labels=labels))


def _own_ids(data: Any, options: DataOptions) -> tuple[Any, DataOptions]:
    """Takes the column of ids out of a dict of columns, unless it is one of the model's inputs or ids were given."""
    if not isinstance(data, Mapping) or options.ids is not None:
        return data, options
    signature = options.signature
    inputs = () if signature is None else (*signature.required, *signature.optional)
    key = next((k for k in ID_KEYS if k in data and k not in inputs), None)
    if key is None or len(data) == 1:
        return data, options
    ids = data[key] if isinstance(data[key], list) else np.asarray(data[key])
    return {k: v for k, v in data.items() if k != key}, replace(options, ids=ids)


def _column(value: Any, convert: Convert) -> Any:
    if not isinstance(value, list) or members(value) is None:
        return sliceable(value, convert)
    rows = [convert(row) for row in value]
    try:
        return np.stack(rows)
    except ValueError as err:
        shapes = ", ".join(sorted({str(r.shape) for r in rows})[:4])
        raise DataError(
            f"a list of {len(rows)} rows has rows of the shapes {shapes} (ragged rows); equal shapes were expected."
        ) from err
