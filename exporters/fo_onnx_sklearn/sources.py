"""Data frames as sources: pandas', polars' and Arrow tables, by name where the model names their columns."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.annotations import annotate_rows
from fo_onnx.sources.arrays import ID_KEYS, ArraySource, open_arrays
from fo_onnx.sources.categories import mark_categories
from fo_onnx.sources.label_finder import LABEL_KEYS
from fo_onnx.sources.labels import to_labels
from fo_onnx.sources.opening import open_builtin

_FRAMES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}


class FrameSources:
    """Opens data frames, alone or in a tuple with labels; refuses sparse matrices."""

    name = "sklearn"

    def accepts(self, data: Any) -> bool:
        """Return whether `data` is a frame, a frame with labels, or a sparse matrix. Imports nothing."""
        if isinstance(data, tuple) and len(data) == 2:
            return _is_frame(data[0])
        return _is_frame(data) or _is_sparse(data)

    def open(self, data: Any, options: DataOptions) -> Source:
        """Return the rows of `data`: the columns that the model names, else all of them side by side.

        Raises:
            DataError: A sparse matrix; columns that the model names are missing; text where the model names no columns.
        """
        if _is_sparse(data):
            raise DataError(
                f"a sparse matrix of shape {tuple(data.shape)} was found, and dense rows were expected: make it dense with "
                ".toarray(), or give its rows in parts from a generator that does."
            )
        # A function of the user's gets whole rows; else columns go by their names, if the model has any.
        frame, labels = data if isinstance(data, tuple) else (data, None)
        if options.input_getter is not None or options.transform is not None:
            whole = _dense(frame)
            return open_builtin(whole if labels is None else (whole, _values(labels)), options)
        names = [str(n) for n in _names(frame)]
        signature = options.signature
        required = () if signature is None else signature.required
        if labels is not None and options.labels is None:
            options = replace(options, labels=_values(labels))
        if set(required) & set(names):
            return self._by_name(frame, names, required, options)
        return open_arrays(_dense(frame), options)

    def _by_name(self, frame: Any, names: list[str], required: tuple[str, ...], options: DataOptions) -> Source:
        missing = [n for n in required if n not in names]
        if missing:
            raise DataError(
                f"the model was fitted on columns that the data frame has not: {', '.join(map(repr, missing[:10]))}; it has "
                f"{', '.join(map(repr, names[:20]))}. Rename or add them."
            )
        columns = {n: _column(frame, n) for n in required}
        # Other columns can be labels or ids, by their names.
        label = next((k for k in LABEL_KEYS if k in names and k not in required), None)
        known = None
        if label is not None and options.labels is None:
            known = to_labels(_values(_series(frame, label)), f"the column {label}")
        key = next((k for k in ID_KEYS if k in names and k not in required), None)
        if key is not None and options.ids is None:
            options = replace(options, ids=_values(_series(frame, key)))
        return ArraySource(columns, annotate_rows(options, labels=known), options)


def _is_frame(data: Any) -> bool:
    for package, kind in _FRAMES.items():
        module = sys.modules.get(package)
        if module is not None and isinstance(data, getattr(module, kind, ())):
            return True
    return False


def _is_sparse(data: Any) -> bool:
    module = sys.modules.get("scipy.sparse")
    return module is not None and bool(module.issparse(data))


def _names(frame: Any) -> list[Any]:
    return list(getattr(frame, "column_names", None) or frame.columns)


def _series(frame: Any, name: str) -> Any:
    key = next(n for n in _names(frame) if str(n) == name)
    return frame[key]


def _values(column: Any) -> Array:
    """Return a column as numpy's; text as an object array of str, as it is in frames."""
    values = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    return values.astype(object) if values.dtype.kind == "U" else values


def _column(frame: Any, name: str) -> Array:
    """Return a column (n,) for a model: numbers, or text; text with missing values stays objects, which no ONNX file takes.

    A pandas column of categories keeps them.
    """
    series = _series(frame, name)
    column = _to_model_values(_values(series), name)
    kind: Any = getattr(series, "dtype", None)
    if type(kind).__name__ != "CategoricalDtype":
        return column
    return mark_categories(column, kind.categories.tolist(), ordered=bool(kind.ordered))


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


def _dense(frame: Any) -> Array:
    """Return all columns side by side (n, columns)."""
    return np.column_stack([_values(_series(frame, str(n))) for n in _names(frame)])
