"""The border of data in files: whatever is wrong with one is a `DataError` that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DataError, reading


@contextmanager
def naming(path: str | os.PathLike[str], doing: str = "Reading", position: int | None = None) -> Iterator[None]:
    """As `fo_onnx.errors.reading`, and errors of what is read, such as labels that are no class, name the file too.

    Args:
        path: The file.
        doing: What was being done, the beginning of the message.
        position: The row that errors are of which name none.
    """
    try:
        with reading(path, DataError, doing):
            yield
    except DataError as err:
        message = str(err.args[0])
        position = position if err.position is None else err.position
        if os.fspath(path) in message:
            err.position = position
            raise
        raise type(err)(f"{doing} {path}: {message}", position=position) from err
