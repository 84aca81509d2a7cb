"""Data in files, told by their suffix."""

from __future__ import annotations

from pathlib import Path

from ..array_files import read_npy, read_npz
from ..errors import DataError, DataNotFoundError
from ..options import DataOptions
from ..protocols import Source
from .arrays import open_arrays
from .file_errors import naming

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
    with naming(path):
        if path.is_dir():
            from .images import ImageFolder, open_images

            return open_images(ImageFolder(path), options)
        if not path.exists():
            raise DataNotFoundError(f"there are no data at {path}.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from .parquet import ParquetSource

        return ParquetSource(path, options)
    if suffix == ".npy":
        with naming(path):
            return open_arrays(read_npy(path, DataError, mapped=True), options)
    if suffix == ".npz":
        with naming(path):
            return open_arrays(read_npz(path, DataError), options)
    raise DataError(
        f"{path} has the suffix {suffix!r}, from which no rows are read; {', '.join(FILE_SUFFIXES)} or a folder of "
        "images were expected."
    )
