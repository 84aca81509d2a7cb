"""The only room that writes: open, write, fsync, rename, fsync of the folder, and nothing else.

A file appears whole or not at all: it is written beside its target, flushed to the disk and renamed. Everything goes
through `operations`, so that a test can make any single step fail.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreWriteError

TEMPORARY = ".tmp"
"""The end of the name of every file that is not finished."""


class Operations:
    """What the operating system is asked for. Tests replace single methods to make them fail."""

    def open(self, path: Path, flags: int) -> int:
        """A descriptor of `path`, created where `flags` say so."""
        return os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o666)

    def write(self, descriptor: int, data: memoryview) -> int:
        """Writes the beginning of `data`; how many bytes of it."""
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        """Waits until what was written is on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size_bytes: int) -> None:
        """Cuts a file off."""
        os.ftruncate(descriptor, size_bytes)

    def replace(self, source: Path, target: Path) -> None:
        """Renames, in one step, over a file that may be there."""
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Waits until the names in `folder` are on the disk. Windows has no such call and needs none."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        """Makes one folder; it may be there."""
        folder.mkdir(exist_ok=True)

    def remove(self, path: Path) -> None:
        """Removes a file; it may be gone."""
        path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Removes a folder and what is in it."""
        shutil.rmtree(folder)


operations = Operations()

_ADVICE = {
    errno.ENOSPC: "Free space on that disk and try again.",
    errno.EDQUOT: "Your disk quota is used up: free space and try again.",
    errno.EACCES: "Choose a place where you may write, or change its rights.",
    errno.EPERM: "Choose a place where you may write, or change its rights.",
    errno.EROFS: "That disk is read-only: choose another place.",
    errno.ENOENT: "The folder is gone, or was never there: make it and try again.",
}


@contextmanager
def os_errors(path: Path, doing: str, kept: Path | None = None) -> Iterator[None]:
    """Turns an `OSError` into a `StoreWriteError` that says what was being done, why it failed, and what to do.

    Args:
        path: The file or folder.
        doing: What was being done, for example ``"writing rows"``.
        kept: Where rows that are finished lie, if anywhere.
    """
    try:
        yield
    except StoreWriteError:
        raise
    except OSError as err:
        advice = _ADVICE.get(err.errno or 0, "Look at the disk and the rights of the folder, and try again.")
        rows = f" Finished rows are kept in {kept}; resume=True goes on from them." if kept else ""
        new = StoreWriteError(f"{doing[:1].upper()}{doing[1:]} failed at {path}: {err.strerror or err}. {advice}{rows}")
        new.errno, new.filename = err.errno, str(path)
        raise new from err


class OutputFile(io.RawIOBase):
    """A file that takes its name only when it is finished. Arrow and zipfile write into it like into any other.

    Used as a context manager it is finished at the end of the block, or discarded when the block raises.

    Args:
        path: The name that the file gets.
        doing: What is being done, for messages.
        temporary: The name until then; the default lies beside `path` and is unique.
        kept: Where finished rows lie, for messages.
        hashing: Whether sha256 is computed; such a file cannot be sought in.

    Attributes:
        size_bytes: How much was written.
    """

    def __init__(
        self, path: Path, doing: str, *, temporary: Path | None = None, kept: Path | None = None, hashing: bool = False
    ) -> None:
        super().__init__()
        self._descriptor: int | None = None
        self._path, self._doing, self._kept = path, doing, kept
        self._temporary = temporary or path.with_name(f".{path.name}.{os.urandom(4).hex()}{TEMPORARY}")
        self._hash = hashlib.sha256() if hashing else None
        self._discarded = False
        self._position = 0
        self.size_bytes = 0
        with os_errors(path, doing, kept):
            self._descriptor = operations.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    @property
    def sha256(self) -> str:
        """Digest of everything written, as hexadecimal text."""
        assert self._hash is not None, "opened without hashing"
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """Whether `seek` works: not while the file is hashed."""
        return self._hash is None

    def tell(self) -> int:
        """The position of the next write."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves the position of the next write."""
        if self._hash is not None:
            raise io.UnsupportedOperation("a file that is hashed is written from its beginning to its end")
        if self._descriptor is None:
            return self._position
        with os_errors(self._path, self._doing, self._kept):
            self._position = os.lseek(self._descriptor, offset, whence)
        return self._position

    def write(self, data: Any, /) -> int:
        """Writes all of `data`, which is bytes or a buffer. Raises `StoreWriteError`."""
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
        with os_errors(self._path, self._doing, self._kept):
            while len(view):
                view = view[operations.write(self._descriptor, view) :]
        self._position += size
        self.size_bytes = max(self.size_bytes, self._position)
        return size

    def close(self) -> None:
        """Does nothing: Arrow closes the files that it writes into, but only `finish` makes one appear."""

    def finish(self, before_rename: Callable[[], None] | None = None) -> None:
        """Puts the file on the disk under its own name, replacing what is there.

        Args:
            before_rename: Called when the whole file is on the disk, under its temporary name.
        """
        assert self._descriptor is not None, "finished twice"
        try:
            with os_errors(self._path, self._doing, self._kept):
                operations.sync(self._descriptor)
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
                if before_rename is not None:
                    before_rename()
                operations.replace(self._temporary, self._path)
                operations.sync_folder(self._path.parent)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Removes what was written. May be called twice."""
        if self._discarded:
            return
        self._discarded = True
        # Errors are left aside: the file is unwanted, and reopening a run folder removes remains.
        with suppress(OSError):
            if self._descriptor is not None:
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
        with suppress(OSError):
            operations.remove(self._temporary)

    def __enter__(self) -> OutputFile:
        """The file."""
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Finishes the file, or discards it after an error."""
        if kind is not None:
            self.discard()
        elif self._descriptor is not None:
            self.finish()

    def __del__(self) -> None:
        """Leaves no descriptor and no temporary file behind."""
        if self._descriptor is not None:
            self.discard()


def write_bytes(path: Path, data: bytes, doing: str = "writing a file", *, temporary: Path | None = None) -> None:
    """Writes a small file in one step. Raises `StoreWriteError`."""
    with OutputFile(path, doing, temporary=temporary) as file:
        file.write(data)


def copy(source: Path, target: Path, doing: str = "copying a file") -> None:
    """Copies a file, whole or not at all. Raises `StoreWriteError`."""
    with source.open("rb") as content, OutputFile(target, doing) as file:
        while block := content.read(2**22):
            file.write(block)


def write_at(path: Path, offset: int, data: bytes, doing: str, kept: Path | None = None) -> int:
    """Puts `data` at `offset` of a file, cuts off what lay behind, and waits until it is on the disk.

    Returns:
        The new size. After a `StoreWriteError` the file is cut back to `offset` as far as that is possible.
    """
    with os_errors(path, doing, kept):
        new = not path.exists()
        descriptor = operations.open(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                operations.truncate(descriptor, offset)
                os.lseek(descriptor, offset, os.SEEK_SET)
                view = memoryview(data)
                while len(view):
                    view = view[operations.write(descriptor, view) :]
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
    return offset + len(data)


def move(source: Path, target: Path, doing: str, kept: Path | None = None) -> None:
    """Renames a finished file or folder and waits until the names are on the disk."""
    with os_errors(target, doing, kept):
        operations.replace(source, target)
        operations.sync_folder(target.parent)


def make_folder(folder: Path, doing: str) -> None:
    """Makes a folder whose parent is there, durably."""
    with os_errors(folder, doing):
        if not folder.is_dir():
            operations.make_folder(folder)
            operations.sync_folder(folder.parent)


def remove_file(path: Path, doing: str) -> None:
    """Removes a file that may be gone."""
    with os_errors(path, doing):
        operations.remove(path)


def remove_tree(folder: Path, doing: str) -> None:
    """Removes a folder and what is in it."""
    with os_errors(folder, doing):
        operations.remove_tree(folder)
