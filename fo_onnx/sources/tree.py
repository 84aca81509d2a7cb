"""Nested structures of arrays: what is a leaf, which leaves there are, and what they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import DataError
from ..protocols import Array

Convert = Callable[[Any], Array]
"""Makes an array of one leaf."""
_PLAIN = (int, float, complex, str, np.generic, type(None))


def as_array(leaf: Any) -> Array:
    """One leaf as a numpy array, without a copy where that is possible.

    Raises:
        DataError: `leaf` is ragged, or cannot be seen as an array.
    """
    try:
        return np.asarray(leaf)
    except (ValueError, TypeError, RuntimeError) as err:
        what = "nested lists of unequal lengths (ragged rows)" if isinstance(leaf, list) else f"a {_type_name(leaf)}"
        raise DataError(
            f"{what} cannot be made one array: {err}. Give rows of equal shape, or convert them with transform=."
        ) from err


def sliceable(leaf: Any, convert: Convert = as_array) -> Any:
    """One leaf whose rows can be taken by position: an array of whatever framework as it is, else a numpy array.

    So a transform sees the rows of tensors as tensors.
    """
    by_position = hasattr(leaf, "shape") and hasattr(leaf, "__getitem__") and not hasattr(leaf, "iloc")
    return leaf if by_position else convert(leaf)


def numeric(array: Array, name: str) -> Array:
    """`array` if it holds numbers; bfloat16 becomes float32, since numpy knows no such type.

    Raises:
        DataError: The dtype is text, object, or another that no model takes.
    """
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    why = " (ragged rows, or rows that are no numbers)" if array.dtype.kind == "O" else ""
    raise DataError(
        f"input {name!r} has the dtype {array.dtype}{why}; numbers were expected. Leave it out with input_getter=, or "
        "convert it with transform=."
    )


def members(value: Any) -> tuple[bool, list[tuple[str, Any]]] | None:
    """The parts of a container: whether they have names of their own, and (name, part) in order; ``None`` for a leaf.

    A list is a leaf where it holds plain numbers or text, however deeply nested.
    """
    if isinstance(value, np.ndarray | int | float):  # most leaves, and this runs for every row
        return None
    if isinstance(value, tuple):
        if hasattr(value, "_fields"):
            return True, list(zip(value._fields, value, strict=True))
        return False, [(str(i), v) for i, v in enumerate(value)]
    if isinstance(value, list):
        return None if _plain_list(value) else (False, [(str(i), v) for i, v in enumerate(value)])
    if isinstance(value, Mapping):
        return True, [(str(k), v) for k, v in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return True, [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return None


def _plain_list(value: list[Any]) -> bool:
    return all(isinstance(v, _PLAIN) or (isinstance(v, list) and _plain_list(v)) for v in value)


def leaves(value: Any) -> Iterator[Any]:
    """Every leaf of a nested structure, in order, ``None`` left out."""
    parts = members(value)
    if parts is None:
        if value is not None:
            yield value
        return
    for _, part in parts[1]:
        yield from leaves(part)


def map_leaves(value: Any, function: Callable[[Any], Any], *, lists_are_leaves: bool = False) -> Any:
    """The same structure with `function` applied to each leaf but ``None``. Mappings and dataclasses become dicts."""
    parts = None if lists_are_leaves and isinstance(value, list) else members(value)
    if parts is None:
        return None if value is None else function(value)
    named, items = parts
    mapped = [map_leaves(v, function, lists_are_leaves=lists_are_leaves) for _, v in items]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*mapped)
    return {k: v for (k, _), v in zip(items, mapped, strict=True)} if named else tuple(mapped)


def flatten(value: Any, convert: Convert = as_array) -> dict[str, Array]:
    """The leaves of a nested structure as arrays by name: ``"0"`` for a lone leaf, else paths joined by dots.

    Raises:
        DataError: There is no leaf, two have one name, or one is no array of numbers.
    """
    found: dict[str, Array] = {}
    _collect(value, "", convert, found)
    if not found:
        raise DataError(f"an element of the data ({_type_name(value)}) holds no input; choose one with input_getter=.")
    return found


def _collect(part: Any, path: str, convert: Convert, found: dict[str, Array]) -> None:
    # Not a closure: one that calls itself is a cycle, which would keep every batch until the next garbage collection.
    parts = members(part)
    if parts is not None:
        for key, inner in parts[1]:
            _collect(inner, f"{path}.{key}" if path else key, convert, found)
    elif part is not None:
        name = path or "0"
        if name in found:
            raise DataError(f"two inputs are called {name!r}; rename one, or choose with input_getter=.")
        found[name] = numeric(convert(part), name)


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
