"""Which source fits the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..options import DataOptions
from ..protocols import Source, SourceFactory
from .arrays import is_arrays, open_arrays
from .beside import beside
from .files import open_file
from .images import ImageFolder, open_images
from .iterables import IterableSource
from .rows import RowSource
from .structure import Structure
from .tree import Convert, as_array

TAKEN = (
    "numpy arrays (also in tuples and dicts), paths of .npy, .npz and .parquet files and of folders of images, an "
    "ImageFolder, anything with __len__ and __getitem__, anything that can be iterated over, and what plugins take"
)


def open_source(data: Any, options: DataOptions, plugins: Sequence[SourceFactory] = ()) -> Source:
    """The rows of any data.

    Args:
        data: What the user gave.
        options: How rows are read.
        plugins: Asked first, in order.

    Raises:
        DataError: Nothing takes data of this type, or they cannot be used.

    Example:
        >>> import numpy as np
        >>> open_source(np.zeros((3, 2)), DataOptions()).length
        3
    """
    for plugin in plugins:
        if plugin.accepts(data):
            return plugin.open(data, options)
    return open_builtin(data, options)


def open_builtin(data: Any, options: DataOptions, convert: Convert = as_array) -> Source:
    """As `open_source`, without plugins.

    Args:
        data: What the user gave.
        options: How rows are read.
        convert: Makes an array of a leaf, such as a framework's tensor.
    """
    if isinstance(data, ImageFolder):
        return open_images(data, options)
    if isinstance(data, str | Path):
        return open_file(data, options)
    if is_arrays(data):
        return open_arrays(data, options, convert)
    if is_sequence(data):
        return open_sequence(data, options, convert)
    if _can_be_iterated(data):
        return IterableSource(data, options, convert)
    what = "an empty dict" if data == {} else f"a {type(data).__module__}.{type(data).__qualname__}"
    raise DataError(f"rows cannot be read from {what}. What can: {TAKEN}.")


def _can_be_iterated(data: Any) -> bool:
    if isinstance(data, dict | str | bytes | set | frozenset | type):
        return False
    # Python iterates over what has __getitem__ alone, too, until an IndexError.
    return isinstance(data, Iterable) or hasattr(type(data), "__getitem__")


def is_sequence(data: Any) -> bool:
    """Whether rows can be read by position."""
    kind = type(data)
    if isinstance(data, type | str | bytes | bytearray | dict):
        return False
    return hasattr(kind, "__len__") and hasattr(kind, "__getitem__")


def open_sequence(data: Any, options: DataOptions, convert: Convert = as_array) -> Source:
    """Data with ``__len__`` and ``__getitem__``, read row by row.

    A list whose elements have the axes of the model's batches, not of its samples, is taken as batches.
    """
    structure = Structure(options, convert)
    if isinstance(data, list | tuple) and len(data) and _holds_batches(data[0], structure):
        return IterableSource(data, options, convert, batched=True)
    return RowSource(data.__getitem__, len(data), options, structure, beside(options))


def _holds_batches(element: Any, structure: Structure) -> bool:
    try:
        return structure.batch_by_ranks(element) is True
    except Exception:
        # What is wrong with the first row is said when it is read, as for any other row.
        return False
