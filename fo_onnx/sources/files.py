"""Data in files, told by their suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import DataError, DataNotFoundError
from ..options import DataOptions
from ..protocols import Array, Source
from .arrays import open_arrays

FILE_SUFFIXES = (".npy", ".npz", ".parquet")


def open_file(path: str | Path, options: DataOptions) -> Source:
    """The rows of a file, or of a folder of images.

    Args:
        path: A `.npy` file (memory-mapped), a `.npz` file (its members by name), a `.parquet` file, or a folder.
        options: How rows are read.

    Raises:
        DataNotFoundError: There is nothing at `path`.
        DataError: Another suffix, or a file that is broken.
    """
    path = Path(path)
    if path.is_dir():
        from .images import ImageFolder, open_images

        return open_images(ImageFolder(path), options)
    if not path.exists():
        raise DataNotFoundError(f"there are no data at {path}.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from .parquet import ParquetSource

        return ParquetSource(path, options)
    if suffix in (".npy", ".npz"):
        return open_arrays(_load(path, suffix), options)
    raise DataError(
        f"{path} has the suffix {suffix!r}, from which no rows are read; {', '.join(FILE_SUFFIXES)} or a folder of "
        "images were expected."
    )


def _load(path: Path, suffix: str) -> Any:
    import zipfile

    try:
        if suffix == ".npy":
            return _mapped(path)
        # numpy leaves its own handle open where the file is broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
            return {name: members[name] for name in members.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as err:
        raise DataError(
            f"{path} cannot be read: {err}. A sound {suffix} file of numbers, without pickled objects, was expected."
        ) from err


def _mapped(path: Path) -> Array:
    try:
        return cast(Array, np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as err:
        # An array of no bytes cannot be mapped.
        if "empty" not in str(err) and "zero" not in str(err).lower():
            raise
        return cast(Array, np.load(path, allow_pickle=False))
