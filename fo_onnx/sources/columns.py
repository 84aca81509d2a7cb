"""Which columns of a table are inputs, ids and labels: one rule for Parquet files and data frames."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from .label_finder import find_label_name

ColumnKind = Literal["number", "list", "text", "other"]
"""What a column holds: numbers, lists of numbers (nested too), text or categories, or something else."""
ID_KEYS = ("id", "ids")
"""What a column of ids may be called."""
_log = logging.getLogger("fo_onnx.sources")


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of a table by their use.

    Attributes:
        inputs: Those that the model gets, in order.
        named: Whether each is an input by its name; else they are one matrix, or the lists that are the rows of one array.
        label: That of the labels; ``None`` if there is none, or labels were given or are not wanted.
        ids: That of the ids; ``None`` likewise.
        is_stacked: Whether inputs without names are stacked side by side, (n, columns); else there is one, which is the array.
    """

    inputs: tuple[str, ...]
    named: bool
    label: str | None
    ids: str | None
    is_stacked: bool

    def join_unnamed(self, arrays: Sequence[Array]) -> Array:
        """Return the one array of inputs that have no names."""
        return np.stack(arrays, axis=1) if self.is_stacked else arrays[0]


def choose_columns(
    columns: Sequence[tuple[str, ColumnKind]], options: DataOptions, index: Collection[str], what: str
) -> ColumnChoice:
    """Return which columns are inputs, labels and ids.

    The inputs are the columns that the model's signature names; else the one list column; else all columns of numbers side by
    side, in the table's order; else those of text, if the model takes it. A model whose rows are texts gets the one column of
    text. Columns called like labels and ids, and pandas' index, are none unless the model names them.

    Args:
        columns: The table's columns, by name and kind, in order.
        options: How rows are read. An ``input_getter`` gets every column.
        index: Those that are pandas' index.
        what: The table, in messages.

    Raises:
        DataError: No columns fit, or two that are needed have one name.
    """
    names = [name for name, _ in columns]
    signature = options.signature
    required = signature.required if signature is not None else ()
    label = find_label_name(names, options)
    ids = next((key for key in ID_KEYS if key in names and key not in required), None)
    # By name, if the model has one in common with the table. Of several inputs none is a matrix of columns that are called otherwise.
    known = required or (() if signature is None else signature.optional)
    named = options.input_getter is None and any(name in names for name in known)
    is_plain = options.input_getter is None and options.transform is None and "list" not in dict(columns).values()
    missing = [name for name in required if name not in names]
    if missing and (named or (is_plain and len(required) > 1)):
        raise DataError(
            f"the model takes columns that {what} has not: {', '.join(map(repr, missing[:10]))}; it has "
            f"{', '.join(map(repr, names[:20]))}. Rename or add them."
        )
    if named and signature is not None:
        inputs = [name for name in (*required, *signature.optional) if name in names]
    elif options.input_getter is not None:
        inputs = names
    else:
        features = [(n, kind) for n, kind in columns if n not in (label, ids) and n not in index]
        inputs = _choose_unnamed(features, options, columns, what)
    # What the user gave instead is not read.
    reserved = inputs if options.input_getter is None else ()
    choice = ColumnChoice(
        tuple(inputs),
        named,
        None if label in reserved or options.labels is not None else label,
        None if ids in reserved or options.ids is not None else ids,
        is_stacked=len(inputs) > 1
        or (dict(columns).get(inputs[0]) != "list" and not _is_lone_text(inputs[0], columns, options)),
    )
    counts = Counter(names)
    double = next((n for n in (*choice.inputs, choice.label, choice.ids) if n is not None and counts[n] > 1), None)
    if double is not None:
        raise DataError(
            f"{what} has {counts[double]} columns called {double}, so that which one is meant cannot be determined. Rename them."
        )
    return choice


def _choose_unnamed(
    features: Sequence[tuple[str, ColumnKind]],
    options: DataOptions,
    columns: Sequence[tuple[str, ColumnKind]],
    what: str,
) -> list[str]:
    lists = [name for name, kind in features if kind == "list"]
    if len(lists) > 1:
        raise DataError(
            f"{what} has several list columns ({', '.join(lists)}), and none is called like the model's inputs{_name_inputs(options)}. "
            "Rename them, or build the inputs with input_getter=."
        )
    numbers, texts = ([name for name, kind in features if kind == wanted] for wanted in ("number", "text"))
    signature = options.signature
    takes_text = signature is None or signature.takes_text
    rows_are_texts = signature is not None and signature.rows_are_texts
    if rows_are_texts and len(texts) > 1:
        raise DataError(
            f"{what} has several columns of text ({', '.join(texts)}), and the model takes one text per row. Choose with "
            f"input_getter=lambda row: row[{texts[0]!r}]."
        )
    chosen = texts if rows_are_texts else lists or numbers or (texts if takes_text else [])
    if not chosen:
        listed = ", ".join(f"{name} ({kind})" for name, kind in columns) or "no columns"
        wanted = "text" if rows_are_texts else "numbers or of lists of numbers"
        inputs = _name_inputs(options)
        nor = f", nor one that is called like the model's inputs{inputs}" if inputs else ""
        raise DataError(f"{what} has no column of {wanted}{nor}; it has {listed}.")
    left_out = [name for name, _ in features if name not in chosen]
    if left_out:
        _log.info("columns of %s that are no inputs, and left out: %s", what, ", ".join(left_out))
    return chosen


def _name_inputs(options: DataOptions) -> str:
    """Return the names of the model's inputs in parentheses; nothing if they are not known."""
    signature = options.signature
    names = () if signature is None else (*signature.required, *signature.optional)
    return f" ({', '.join(names[:10])})" if names else ""


def _is_lone_text(name: str, columns: Sequence[tuple[str, ColumnKind]], options: DataOptions) -> bool:
    """Return whether a column is text for a model whose rows may be texts."""
    signature = options.signature
    return dict(columns)[name] == "text" and (signature is None or signature.ranks != (2,))


@dataclass(frozen=True)
class PandasIndex:
    """The index of a data frame that was written to a table.

    Attributes:
        columns: Columns that hold it.
        positions: The index itself, if it is a range of integers and no column.
    """

    columns: tuple[str, ...] = ()
    positions: range | None = None


def read_pandas_index(metadata: Mapping[bytes, bytes] | None, names: Collection[str]) -> PandasIndex:
    """Return the index of the data frame that a table with these columns was made of, by the metadata of its schema.

    # source: pandas' developer documentation, "Storing pandas DataFrame objects in Apache Parquet format"
    """
    text = (metadata or {}).get(b"pandas")
    try:
        entries = [] if text is None else json.loads(text)["index_columns"]
        columns = tuple(e for e in entries if isinstance(e, str) and e in names)
        bounds = next(([e["start"], e["stop"], e["step"]] for e in entries if isinstance(e, dict)), None)
        positions = None if bounds is None or max(map(abs, bounds)) >= 2**61 else range(*bounds)
    except (ValueError, LookupError, TypeError):
        return PandasIndex()  # metadata of another program
    return PandasIndex(columns, positions if len(entries) == 1 else None)
