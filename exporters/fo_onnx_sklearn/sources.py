"""Data frames as sources: pandas', polars' and Arrow tables, by name where the model names their columns."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.annotations import annotate_rows, check_ids
from fo_onnx.sources.arrays import ArraySource
from fo_onnx.sources.categories import mark_categories
from fo_onnx.sources.columns import ColumnKind, choose_columns, read_pandas_index
from fo_onnx.sources.labels import to_labels
from fo_onnx.sources.opening import open_builtin

_FRAMES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
_log = logging.getLogger("fo_onnx.sources")


class FrameSources:
    """Opens data frames and series, alone or in a tuple with labels; refuses sparse matrices."""

    name = "sklearn"

    def accepts(self, data: Any) -> bool:
        """Return whether `data` is a frame or a series, with labels or without, or what is refused with a way out. Imports nothing."""
        if isinstance(data, tuple) and len(data) == 2:
            return _is_frame(data[0]) or _is_series(data[0])
        return _is_frame(data) or _is_series(data) or _is_sparse(data) or _is_lazy(data)

    def open(self, data: Any, options: DataOptions) -> Source:
        """Return the rows of `data`, of the columns that `fo_onnx.sources.columns.choose_columns` says.

        Raises:
            DataError: A sparse matrix or a lazy frame; labels in another order of the index; columns that the model names are
                missing; no column of numbers.
        """
        if _is_sparse(data):
            raise DataError(
                f"a sparse matrix of shape {tuple(data.shape)} was found, and dense rows were expected: make it dense with "
                ".toarray(), or give its rows in parts from a generator that does."
            )
        if _is_lazy(data):
            raise DataError(
                "a polars LazyFrame was found, which has no rows yet; a DataFrame was expected: give .collect()."
            )
        frame, labels = data if isinstance(data, tuple) else (data, None)
        _require_same_order(frame, options.labels if labels is None else labels)
        if labels is not None and options.labels is None:
            options = replace(options, labels=_values(labels))
        if _is_series(frame):
            options = replace(options, ids=_ids_of_index(frame) if options.ids is None else options.ids)
            return open_builtin(_values(frame), options)
        if hasattr(frame, "iloc"):
            return _open_pandas(frame, options)
        from fo_onnx.sources.tables import TableSource

        return TableSource(frame.to_arrow() if hasattr(frame, "to_arrow") else frame, options)


def _open_pandas(frame: Any, options: DataOptions) -> Source:
    names, series = [str(n) for n in frame.columns], _columns(frame)
    kinds = [(n, _kind_of(column)) for n, column in zip(names, series, strict=True)]
    # A frame whose columns are numbered is a matrix, as it is to scikit-learn.
    has_names = any(isinstance(n, str) for n in frame.columns)
    choice = choose_columns(kinds, options if has_names else replace(options, signature=None), (), "the data frame")
    columns = dict(zip(names, series, strict=True))
    if options.input_getter is not None:
        options = replace(options, ids=_ids_of_index(frame) if options.ids is None else options.ids)
        whole = {n: _values(column) for n, column in columns.items()}
        return open_builtin(whole if has_names else np.column_stack(list(whole.values())), options)
    inputs = {n: _column(columns[n], n) for n in choice.inputs}
    if not choice.named:
        inputs = {"0": choice.join_unnamed(list(inputs.values()))}
    ids = (
        _ids_of_index(frame)
        if choice.ids is None
        else _unique_ids(_values(columns[choice.ids]), f"the column {choice.ids}")
    )
    labels = None if choice.label is None else to_labels(_values(columns[choice.label]), f"the column {choice.label}")
    if options.transform is None:
        return ArraySource(inputs, annotate_rows(options, ids, labels), options)
    options = replace(
        options,
        ids=ids if options.ids is None else options.ids,
        labels=_values(columns[choice.label]) if choice.label is not None else options.labels,
    )
    return open_builtin(inputs if choice.named else inputs["0"], options)


def _is_frame(data: Any) -> bool:
    for package, kind in _FRAMES.items():
        module = sys.modules.get(package)
        if module is not None and isinstance(data, getattr(module, kind, ())):
            return True
    return False


def _is_series(data: Any) -> bool:
    module = sys.modules.get("pandas")
    return module is not None and isinstance(data, module.Series)


def _is_lazy(data: Any) -> bool:
    module = sys.modules.get("polars")
    return module is not None and isinstance(data, module.LazyFrame)


def _is_sparse(data: Any) -> bool:
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(data))


def _columns(frame: Any) -> list[Any]:
    """Return the columns of a frame in order, without pandas' index; names may be there twice."""
    if hasattr(frame, "iloc"):
        return [frame.iloc[:, i] for i in range(len(frame.columns))]
    if hasattr(frame, "get_columns"):
        return list(frame.get_columns())
    index = read_pandas_index(frame.schema.metadata, frame.column_names).columns
    return [column for name, column in zip(frame.column_names, frame.columns, strict=True) if name not in index]


def _require_same_order(frame: Any, labels: Any) -> None:
    """Raise a `DataError` if pandas' labels have the frame's index in another order: by position they would meet other rows.

    An index that only counts the labels says nothing, unless the data's holds the same numbers.
    """
    index: Any = getattr(frame, "index", None)
    other: Any = getattr(labels, "index", None)
    if not hasattr(index, "is_unique") or not hasattr(other, "is_unique") or len(index) != len(other):
        return
    if not index.is_unique or other.equals(index):
        return
    is_count = np.array_equal(other, np.arange(len(other)))
    if other.isin(index).all() or (not is_count and other.isin(index).any()):
        raise DataError(
            "the labels have the index of the data in another order or shifted, and by position they would be those of other rows. Give "
            "labels.loc[data.index] to match them by the index, or labels.to_numpy() to match them by position."
        )


def _ids_of_index(frame: Any) -> Array | None:
    """Return pandas' index as ids, if it is integers or text, each there once, and more than the positions; else ``None``."""
    index = getattr(frame, "index", None)
    if index is None or getattr(index, "nlevels", 1) > 1:
        return None
    ids = _unique_ids(_values(index), "the index")
    return None if ids is not None and ids.dtype.kind == "i" and np.array_equal(ids, np.arange(len(ids))) else ids


def _unique_ids(values: Array, what: str) -> Array | None:
    if values.dtype.kind not in "iuO":
        return None
    try:
        return check_ids(values, what)
    except DataError as err:
        _log.info("%s of a data frame gives no ids, and rows are identified by their position: %s", what, err)
        return None


def _kind_of(column: Any) -> ColumnKind:
    """Return what a pandas column holds; of objects the first value that is not missing says it."""
    dtype = getattr(getattr(column.dtype, "categories", None), "dtype", column.dtype)
    if dtype.kind in "biuf":
        return "number"
    first = next((v for v in column if not _is_missing(v)), None) if dtype.kind in "OU" else None
    if isinstance(first, str):
        return "text"
    if isinstance(first, list | tuple | np.ndarray):
        return "list"
    return "number" if isinstance(first, int | float | np.number | np.bool_) else "other"


def _values(column: Any) -> Array:
    """Return a column as numpy's; text as an object array of str, as it is in frames."""
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    return values.astype(object) if values.dtype.kind == "U" else values


def _column(column: Any, name: str) -> Array:
    """Return a column for a model: numbers or text (n,), lists stacked (n, …); categories stay with their column.

    Text with missing values stays objects, which no ONNX file takes.
    """
    if _kind_of(column) == "list":
        return _stack_lists(column, name)
    values, dtype = _to_model_values(_values(column), name), column.dtype
    if type(dtype).__name__ != "CategoricalDtype":
        return values
    return mark_categories(values, dtype.categories.tolist(), ordered=bool(dtype.ordered))


def _stack_lists(column: Any, name: str) -> Array:
    try:
        return np.stack([np.asarray(row) for row in column])
    except ValueError as err:
        raise DataError(
            f"the lists in the column {name!r} differ in shape, or some are missing ({err}); one shape was expected. Pad them, or leave "
            "such rows out of the frame."
        ) from err


def _to_model_values(column: Array, name: str) -> Array:
    if column.dtype.kind in "biuf":
        return column
    values = column.tolist()
    if all(isinstance(v, str) for v in values):
        return np.array(values, dtype=np.str_)
    with contextlib.suppress(TypeError, ValueError):
        # Nullable columns of numbers come as objects, with their package's own mark for what is missing.
        return np.array([np.nan if _is_missing(v) else v for v in values], np.float64)
    odd = next((v for v in values if not isinstance(v, str) and not _is_missing(v)), None)
    if odd is not None:
        raise DataError(
            f"the column {name!r} holds {type(odd).__name__} values among others; numbers or text were expected. Convert it with "
            "frame.assign()."
        )
    # None and NaN are two categories to scikit-learn, and stay what they are.
    return np.array([np.nan if type(v).__name__ == "NAType" else v for v in values], dtype=object)


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)
