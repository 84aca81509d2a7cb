"""Nested structures of arrays: what is a leaf, which leaves there are, and what they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..contracts.batch import Array
from ..errors import DataError

Convert = Callable[[Any], Array]
"""Makes an array of one leaf."""
_PLAIN = (int, float, complex, str, np.generic, type(None))


class Parts(NamedTuple):
    """The parts of a container.

    Attributes:
        named: Whether the parts have names of their own (a dict, a dataclass, a named tuple).
        items: (name, part), in order. Without names of their own they are called ``"0"``, ``"1"``, …
    """

    named: bool
    items: list[tuple[str, Any]]


def as_array(leaf: Any) -> Array:
    """Return one leaf as a numpy array, without a copy where that is possible.

    Text beside numbers in a list makes an array of objects: numpy would make text of the numbers.

    Raises:
        DataError: `leaf` is ragged, or cannot be seen as an array.
    """
    if isinstance(leaf, np.ma.MaskedArray) and np.ma.is_masked(leaf):
        raise DataError(
            "a masked array has masked values, which a model has no word for: fill them as the model was trained, for example with "
            ".filled(np.nan)."
        )
    try:
        array = np.asarray(leaf)
        is_mixed = isinstance(leaf, list) and array.dtype.kind in "US" and not _holds_texts(leaf)
        return np.array(leaf, dtype=object) if is_mixed else array
    except (ValueError, TypeError, RuntimeError) as err:
        what = "nested lists of unequal lengths (ragged rows)" if isinstance(leaf, list) else f"a {_type_name(leaf)}"
        raise DataError(
            f"{what} cannot be made one array: {err}. Give rows of equal shape, or convert them with transform=."
        ) from err


def _holds_texts(values: list[Any]) -> bool:
    """Return whether nested lists hold text and nothing else."""
    return all(_holds_texts(v) if isinstance(v, list) else isinstance(v, str | bytes) for v in values)


def make_sliceable(leaf: Any, convert: Convert = as_array) -> Any:
    """Return one leaf so that its rows can be taken by position: a framework's array as it is, else a numpy array.

    So a transform sees the rows of tensors as tensors.
    """
    by_position = hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") and not hasattr(leaf, "iloc")
    return leaf if by_position else convert(leaf)


def parts_of(value: Any) -> Parts | None:
    """Return the parts of a container; ``None`` for a leaf.

    A list is a leaf if it holds plain numbers or text, however deeply nested.
    """
    if isinstance(value, np.ndarray | int | float):  # most leaves, and this runs for every row
        return None
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return Parts(True, list(zip(value._fields, value, strict=True)))
        return Parts(False, [(str(i), v) for i, v in enumerate(value)])
    if isinstance(value, list):
        return None if _is_plain(value) else Parts(False, [(str(i), v) for i, v in enumerate(value)])
    if isinstance(value, Mapping):
        return Parts(True, [(str(k), v) for k, v in value.items()])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return Parts(True, [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)])
    return None


def _is_plain(value: list[Any]) -> bool:
    return all(isinstance(v, _PLAIN) or (isinstance(v, list) and _is_plain(v)) for v in value)


def named_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a nested structure, in order, without ``None``, each with its name.

    That is ``"0"`` for a lone leaf, else its path below `path`, joined by dots.
    """
    parts = parts_of(value)
    if parts is not None:
        for key, part in parts.items:
            yield from named_leaves(part, f"{path}.{key}" if path else key)
    elif value is not None:
        yield path or "0", value


def leaves(value: Any) -> Iterator[Any]:
    """Yield every leaf of a nested structure, in order, without ``None``."""
    return (leaf for _, leaf in named_leaves(value))


def map_leaves(value: Any, function: Callable[[Any], Any], *, lists_are_leaves: bool = False) -> Any:
    """Apply `function` to each leaf but ``None``, and return the same structure, with dicts for what has names."""
    parts = None if lists_are_leaves and isinstance(value, list) else parts_of(value)
    if parts is None:
        return None if value is None else function(value)
    # A tuple stays one, with the names that it has.
    mapped = {name: map_leaves(part, function, lists_are_leaves=lists_are_leaves) for name, part in parts.items}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*mapped.values())
    return mapped if parts.named else tuple(mapped.values())


def flatten(
    value: Any, convert: Convert = as_array, *, takes_text: bool = False, is_whole: bool = False
) -> dict[str, Array]:
    """Return the leaves of a nested structure as arrays by the names of `named_leaves`.

    Text comes as objects (str), whose dtype is the same whatever the longest text of a batch; numpy's text stays if the arrays
    hold all rows (`is_whole`).

    Raises:
        DataError: There is no leaf, two have one name, or one is no array of numbers, nor of text if the model takes it.
    """
    arrays: dict[str, Array] = {}
    for name, leaf in named_leaves(value):
        if name in arrays:
            raise DataError(f"two inputs are called {name!r}; rename one, or choose with input_getter=.")
        array = convert(leaf)
        if is_whole and takes_text and array.dtype.kind == "U":
            arrays[name] = array
        else:
            arrays[name] = _to_text(array) if takes_text and _is_text(array) else _to_numbers(array, name)
    if value is None:
        raise DataError(
            "an element of the data is None, which is no row. Mend the row, or go past such rows with on_error='skip' or "
            "on_error='record'."
        )
    if not arrays:
        raise DataError(f"an element of the data ({_type_name(value)}) holds no input; choose one with input_getter=.")
    return arrays


def _is_text(array: Array) -> bool:
    """Return whether an array holds text; one of objects may hold numbers beside it, and values that are missing."""
    if array.dtype.kind != "O":
        return array.dtype.kind in "US"
    return array.size > 0 and all(issubclass(kind, (*_PLAIN, bytes)) for kind in {type(v) for v in array.flat})


def _to_text(array: Array) -> Array:
    """Return text as objects; bytes are decoded. What is no text stays as it is, for the model to take or refuse."""
    texts = [
        v.decode(errors="replace") if isinstance(v, bytes) else str(v) if isinstance(v, str) else v for v in array.flat
    ]
    return np.array(texts, dtype=object).reshape(array.shape)


def _to_numbers(array: Array, name: str) -> Array:
    """Return `array` if it holds numbers; bfloat16 becomes float32, since numpy knows no such type."""
    if array.dtype.kind in "biufc":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    why = " (ragged rows, or rows that are no numbers)" if array.dtype.kind == "O" else ""
    raise DataError(
        f"input {name!r} has the dtype {array.dtype}{why}; numbers were expected. Leave it out with input_getter=, or "
        "convert it with transform=."
    )


def count_rows(value: Any, convert: Convert = as_array) -> int | None:
    """Return the length of the first leaf's first axis; ``None`` if it has none."""
    first = next(leaves(value), None)
    shape = () if first is None else convert(first).shape
    return shape[0] if shape else None


def common_length(named: Iterable[tuple[str, Array]], labels: Array | None) -> int:
    """Return the length of the first axis that all arrays share; two of them may have one name.

    Raises:
        DataError: An array has no axis, or lengths differ.
    """
    lengths = []
    for name, array in named:
        if array.ndim == 0:
            raise DataError(f"input {name!r} is a single number of shape (), not an array of rows, (n, …).")
        lengths.append((name, len(array)))
    # The labels are one array more.
    if labels is not None:
        if labels.ndim == 0:
            raise DataError("the labels are a single number: one label per row was expected.")
        lengths.append(("labels", len(labels)))
    if len({n for _, n in lengths}) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths)
        raise DataError(f"the arrays have unequal numbers of rows: {listed}. One row per sample was expected in each.")
    return lengths[0][1]


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
