"""Files that appear whole or not at all: written under another name, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import StoreExistsError
from .operations import capitalise, operations, os_errors, write_all
from .ownership import TEMPORARY, read_marker, require_replaceable


class OutputFile(io.RawIOBase):
    """A file that takes its name only when it is finished. Arrow and zipfile write into it like into any other.

    Used as a context manager it is finished at the end of the block, or discarded when the block raises.

    Args:
        path: The name that the file gets.
        doing: What is being done, for messages.
        temporary: The name until then, in a folder of ours; by default ``<name>.tmp`` beside `path`, for files that lie
            in a folder of ours themselves.
        hashing: Whether sha256 is computed; such a file cannot be sought in.
        replaces: Whether a regular file that is there may be replaced; see `require_replaceable`.
        private: Whether nobody else may read the file.
        marks_folder: Whether it is the marker by which its folder becomes ours.

    Attributes:
        size_bytes: How much was written.
    """

    def __init__(
        self,
        path: Path,
        doing: str,
        *,
        temporary: Path | None = None,
        hashing: bool = False,
        replaces: Callable[[Path], bool] | None = None,
        private: bool = False,
        marks_folder: bool = False,
    ) -> None:
        super().__init__()
        self._descriptor: int | None = None
        self._path, self._doing, self._replaces = path, doing, replaces
        self._temporary = temporary or path.with_name(path.name + TEMPORARY)
        self._hash = hashlib.sha256() if hashing else None
        self._discarded = False
        self._position = 0
        self.size_bytes = 0
        # Only in a folder of ours is a file begun: anywhere else it could take the place of another's.
        if not marks_folder and read_marker(self._temporary.parent) is None:
            raise StoreExistsError(
                f"{capitalise(doing)} at {path}: {self._temporary.parent} is no folder of fo-onnx (any more), and only "
                "there files are begun. Begin again."
            )
        with os_errors(path, doing):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._descriptor = operations.open(self._temporary, flags, *((0o600,) if private else ()))
            self._status = os.fstat(self._descriptor)

    @property
    def sha256(self) -> str:
        """Return the digest of everything written, as hexadecimal text."""
        assert self._hash is not None, "opened without hashing"
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return whether `seek` works: not while the file is hashed."""
        return self._hash is None

    def tell(self) -> int:
        """Return the position of the next write."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position of the next write."""
        if self._hash is not None:
            raise io.UnsupportedOperation("a file that is hashed is written from its beginning to its end")
        if self._descriptor is None:
            return self._position
        with os_errors(self._path, self._doing):
            self._position = os.lseek(self._descriptor, offset, whence)
        return self._position

    def write(self, data: Any, /) -> int:
        """Write all of `data`, which is bytes or a buffer. Raises `StoreWriteError`."""
        view = memoryview(data)
        if view.nbytes == 0:
            return 0
        view = view.cast("B")
        size = len(view)
        if self._discarded:
            # A library that cleans up after a failure writes its footer to a file that nobody will see.
            return size
        assert self._descriptor is not None, "written to after finish()"
        if self._hash is not None:
            self._hash.update(view)
        with os_errors(self._path, self._doing):
            write_all(self._descriptor, view)
        self._position += size
        self.size_bytes = max(self.size_bytes, self._position)
        return size

    def close(self) -> None:
        """Do nothing: Arrow closes the files that it writes into, but only `finish` makes one appear."""

    def finish(self, before_rename: Callable[[], None] | None = None) -> None:
        """Put the file on the disk under its own name, replacing what is there.

        Args:
            before_rename: Called when the whole file is on the disk, under its temporary name.
        """
        assert self._descriptor is not None, "finished twice"
        try:
            with os_errors(self._path, self._doing):
                operations.sync(self._descriptor)
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
                if before_rename is not None:
                    before_rename()
                # Looked at last of all, so that what appeared meanwhile is not replaced.
                require_replaceable(self._path, self._replaces, self._doing)
                operations.replace(self._temporary, self._path)
                operations.sync_folder(self._path.parent)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written. May be called twice."""
        if self._discarded:
            return
        self._discarded = True
        # Errors are left aside: the file is unwanted, and reopening a run folder removes remains.
        with suppress(OSError):
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
        with suppress(OSError):
            # One that is discarded late, by the garbage collector, may find the file of a later run in its place.
            if os.path.samestat(self._temporary.lstat(), self._status):
                operations.remove(self._temporary)

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.discard()
        elif self._descriptor is not None:
            self.finish()

    def __del__(self) -> None:
        if self._descriptor is not None:
            self.discard()


def write_bytes(
    path: Path,
    data: bytes,
    doing: str = "writing a file",
    *,
    temporary: Path | None = None,
    replaces: Callable[[Path], bool] | None = None,
    private: bool = False,
) -> None:
    """Write a small file in one step; see `OutputFile`. Raises `StoreWriteError`, `StoreExistsError`."""
    with OutputFile(path, doing, temporary=temporary, replaces=replaces, private=private) as file:
        file.write(data)


def copy(
    source: Path, target: Path, doing: str = "copying a file", *, temporary: Path | None = None, private: bool = False
) -> None:
    """Copy a file, whole or not at all; see `OutputFile`. Raises `StoreWriteError`, `StoreExistsError`."""
    with source.open("rb") as content, OutputFile(target, doing, temporary=temporary, private=private) as file:
        shutil.copyfileobj(content, file, 2**22)


def write_at(path: Path, offset: int, data: bytes, doing: str) -> None:
    """Put `data` at `offset` of a file, cut off what lay behind, and wait until it is on the disk.

    After a `StoreWriteError` the file is cut back to `offset` as far as that is possible.
    """
    with os_errors(path, doing):
        new = not path.exists()
        descriptor = operations.open(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                operations.truncate(descriptor, offset)
                os.lseek(descriptor, offset, os.SEEK_SET)
                write_all(descriptor, data)
                operations.sync(descriptor)
            except BaseException:
                # The next write would cut it off anyway; readers ignore a last line that is not whole.
                with suppress(OSError):
                    operations.truncate(descriptor, offset)
                raise
        finally:
            os.close(descriptor)
        if new:
            operations.sync_folder(path.parent)
