"""Chooses the source that fits the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..contracts.options import DataOptions
from ..contracts.source import Source, SourceFactory
from ..errors import DataError, DataNotFoundError
from ..guards.array_files import read_npy, read_npz
from .annotations import annotate_rows
from .arrays import is_arrays, open_arrays
from .class_labels import find_class_names
from .elements import ElementParser
from .files import reading_data
from .images import ImageFolder, open_images
from .iterables import IterableSource, find_length
from .nested import Convert, as_array
from .sequences import RowSource

FILE_SUFFIXES = (".npy", ".npz", ".parquet")


def open_source(data: Any, options: DataOptions, plugins: Sequence[SourceFactory] = ()) -> Source:
    """Open the rows of any data.

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
    """Do as `open_source`, without plugins; `convert` makes an array of a leaf, such as a framework's tensor."""
    if isinstance(data, ImageFolder):
        return open_images(data, options)
    if isinstance(data, str | Path):
        return _open_file(Path(data), options)
    if is_arrays(data):
        return open_arrays(data, options, convert)
    if is_sequence(data):
        return open_sequence(data, options, convert)
    # Python iterates over what has __getitem__ alone, too, until an IndexError.
    iterates = isinstance(data, Iterable) or hasattr(type(data), "__getitem__")
    if iterates and not isinstance(data, dict | str | bytes | set | frozenset | type):
        return IterableSource(data, options, convert)
    what = "an empty dict" if data == {} else f"a {type(data).__module__}.{type(data).__qualname__}"
    raise DataError(
        f"rows cannot be read from {what}. What can: numpy arrays (also in tuples and dicts), paths of "
        f"{', '.join(FILE_SUFFIXES)} files and of folders of images, an ImageFolder, anything with __len__ and "
        "__getitem__, anything that can be iterated over, and what plugins take."
    )


def is_sequence(data: Any) -> bool:
    """Return whether rows can be read by position."""
    if isinstance(data, type | str | bytes | bytearray | dict):
        return False
    has_both = hasattr(type(data), "__len__") and hasattr(type(data), "__getitem__")
    return has_both and find_length(data) is not None


def open_sequence(data: Any, options: DataOptions, convert: Convert = as_array) -> Source:
    """Open data with ``__len__`` and ``__getitem__``, read row by row.

    A list whose elements have the axes of the model's batches, not of its samples, is taken as batches.
    """
    if isinstance(data, list | tuple) and len(data):
        try:
            holds_batches = ElementParser(options, convert).is_batch_by_ranks(data[0])
        except Exception:
            holds_batches = False  # what is wrong with the first row is said when it is read, as for any other row
        if holds_batches:
            return IterableSource(data, options, convert, batched=True)
    source = RowSource(data.__getitem__, len(data), options, annotate_rows(options), convert)
    source.carried_names = find_class_names(data, options)
    source.in_memory = type(data) in (list, tuple) and options.transform is None and options.input_getter is None
    return source


def _open_file(path: Path, options: DataOptions) -> Source:
    """Open a `.npy` file (memory-mapped), a `.npz` file (members by name), a `.parquet` file, a folder of images."""
    suffix = path.suffix.lower()
    with reading_data(path):
        if path.is_dir():
            return open_images(ImageFolder(path), options)
        if not path.exists():
            raise DataNotFoundError(f"there are no data at {path}.")
        if suffix == ".npy":
            return open_arrays(read_npy(path, DataError, mapped=True), options)
        if suffix == ".npz":
            return open_arrays(read_npz(path, DataError), options)
    if suffix == ".parquet":
        from .parquet import ParquetSource

        return ParquetSource(path, options)
    raise DataError(
        f"{path} has the suffix {suffix!r}, from which no rows are read; {', '.join(FILE_SUFFIXES)} or a folder of "
        "images were expected."
    )
