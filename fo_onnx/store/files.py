"""The only room that writes, replaces and removes; nothing of anybody else's.

A file appears whole or not at all: it is written beside its target in a folder of ours, flushed to the disk and
renamed. A folder is ours only where its marker says so (`read_marker`), and only the entries that its owner names are
ever removed, never through a link. Everything goes through `operations`, so that a test can make any single step fail.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError, StoreExistsError, StoreWriteError
from ..version import __version__

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger("fo_onnx.store")

TEMPORARY = ".tmp"
"""The end of the name of every file that is not finished."""
LOCK = ".lock"
MARKERS = ("run.json", "manifest.json", "fo-onnx.json")
"""Files that can mark a folder as ours: those of a run, and that of every other folder."""
KIND_RUN, KIND_WORK, KIND_TEMPORARY, KIND_CACHED = (
    f"fo-onnx {what}" for what in ("run", "work folder", "temporary folder", "cached export")
)
KINDS = (KIND_RUN, KIND_WORK, KIND_TEMPORARY, KIND_CACHED)
MARKER_SCHEMA = 1
_MARKER_BYTES = 256 * 2**20
_MARKER_START = b'{"kind": "fo-onnx '
WORK_FILES = ("assembled.tmp", "data.tmp", "beside.tmp")
"""What may be begun in a work folder."""
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_REMOVED = ".fo-onnx-removed-"
_TEMPORARY_FOLDER = "fo-onnx-"
_BEGUN_S = 60.0
"""A temporary folder that is not marked after this time was left by a kill."""


class Operations:
    """What the operating system is asked for. Tests replace single methods to make them fail."""

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        """A descriptor of `path`, created where `flags` say so; a link is not followed."""
        return os.open(
            path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0), mode
        )

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

    def make_folder(self, folder: Path, mode: int = 0o777) -> None:
        """Makes one folder; it may be there."""
        folder.mkdir(mode, exist_ok=True)

    def remove(self, path: Path) -> None:
        """Removes a file; it may be gone."""
        path.unlink(missing_ok=True)

    def remove_folder(self, folder: Path) -> None:
        """Removes an empty folder; it may be gone."""
        with suppress(FileNotFoundError):
            folder.rmdir()

    def remove_tree(self, folder: Path) -> None:
        """Removes a folder and what is in it; links in it go, what they point at stays."""
        shutil.rmtree(folder)


operations = Operations()

_ADVICE = {
    errno.ENOSPC: "Free space on that disk and try again.",
    errno.EDQUOT: "Your disk quota is used up: free space and try again.",
    errno.EACCES: "Choose a place where you may write, or change its rights.",
    errno.EPERM: "Choose a place where you may write, or change its rights.",
    errno.EROFS: "That disk is read-only: choose another place.",
    errno.ENOENT: "The folder is gone, or was never there: make it and try again.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "There is a link of that name, which is not followed: remove it, or choose another name.",
}


@contextmanager
def os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turns an `OSError` into a `StoreWriteError` that says what was being done, why it failed, and what to do.

    Args:
        path: The file or folder.
        doing: What was being done, for example ``"writing rows"``.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as err:
        code = err.errno if isinstance(err, OSError) else None
        said = (err.strerror if isinstance(err, OSError) else None) or err
        advice = _ADVICE.get(code or 0, "Look at the disk and the rights of the folder, and try again.")
        new = StoreWriteError(f"{doing[:1].upper()}{doing[1:]} failed at {path}: {said}. {advice}")
        new.errno, new.filename = code, str(path)
        raise new from err


# Whose a folder or file is ---------------------------------------------------------------------------------------


def marker(kind: str, **more: Any) -> dict[str, Any]:
    """What marks a folder as ours, to be written as JSON into one of `MARKERS`."""
    return {"kind": kind, "schema": MARKER_SCHEMA, "fo_onnx": __version__, **more}


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of a folder of ours; ``None`` for every other folder, for a link, and for what is no folder."""
    if not _is_folder(folder):
        return None
    for name in MARKERS:
        path = folder / name
        with suppress(OSError, ValueError, RecursionError):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _MARKER_BYTES:
                continue
            table = json.loads(path.read_bytes())
            if isinstance(table, dict) and table.get("kind") in KINDS and type(table.get("schema")) is int:
                return table
    return None


def foreign_entries(folder: Path, entries: Collection[str]) -> list[str]:
    """What is in a folder beside its marker, its lock and `entries`: every link, and every name that is none of these.

    Args:
        folder: The folder.
        entries: Relative names of files, one folder deep at most (``"data/part-0.parquet"``).
    """
    own_files = {*entries, *MARKERS, *(name + TEMPORARY for name in MARKERS), LOCK}
    own_folders = {name.split("/")[0] for name in entries if "/" in name}
    foreign = []
    with os_errors(folder, "looking into a folder"), os.scandir(folder) as top:
        for entry in sorted(top, key=lambda e: e.name):
            if entry.name in own_folders and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as inner:
                    names = {f"{entry.name}/{e.name}": e for e in inner}
                foreign += [
                    n for n, e in sorted(names.items()) if n not in own_files or not e.is_file(follow_symlinks=False)
                ]
            elif entry.name not in own_files or not entry.is_file(follow_symlinks=False):
                foreign.append(entry.name)
    return foreign


def may_begin_in(folder: Path) -> bool:
    """Whether a folder is empty, or holds nothing but what a killed beginning leaves: our lock, the start of a marker."""
    if not _is_folder(folder):
        return False
    with os_errors(folder, "looking into a folder"), os.scandir(folder) as entries:
        return all(e.is_file(follow_symlinks=False) and _is_of_a_beginning(Path(e.path)) for e in entries)


def _is_of_a_beginning(path: Path) -> bool:
    if path.name == LOCK:
        return path.lstat().st_size == 0
    if path.name not in [name + TEMPORARY for name in MARKERS]:
        return False
    with path.open("rb") as file:
        start = file.read(len(_MARKER_START))
    return _MARKER_START.startswith(start)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def require_replaceable(path: Path, replaces: Callable[[Path], bool] | None, doing: str) -> None:
    """Refuses to write over what is not ours.

    Args:
        path: The name that is wanted.
        replaces: Whether a regular file there is one of ours that may be replaced. Without it the folder tells: in one
            of ours it is, in any other it is not.
        doing: What is being done, for the message.

    Raises:
        StoreExistsError: A link, a folder, a device, or a file that is not ours is there.
    """
    begun = f"{doing[:1].upper()}{doing[1:]} at {path}"
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as err:
        with os_errors(path, doing):
            raise err
    if stat.S_ISLNK(mode):
        raise StoreExistsError(
            f"{begun}: a link of that name is there, which is neither followed nor replaced. Remove it, or choose another "
            "name."
        )
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "something that is no regular file"
        raise StoreExistsError(f"{begun}: {what} of that name is there. Choose another name.")
    if not (replaces(path) if replaces else read_marker(path.parent) is not None):
        raise StoreExistsError(
            f"{begun}: a file is there that fo-onnx did not write (or that is damaged), and such files are never replaced. "
            "Remove it, or choose another name."
        )


# Files -----------------------------------------------------------------------------------------------------------


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
        private: Whether nobody else may read it.

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
    ) -> None:
        super().__init__()
        self._descriptor: int | None = None
        self._path, self._doing, self._replaces = path, doing, replaces
        self._temporary = temporary or path.with_name(path.name + TEMPORARY)
        self._hash = hashlib.sha256() if hashing else None
        self._discarded = False
        self._position = 0
        self.size_bytes = 0
        self._require_own_folder()
        with os_errors(path, doing):
            self._descriptor = operations.open(self._temporary, _NEW_FILE, *_mode(private))
            self._status = os.fstat(self._descriptor)

    def _require_own_folder(self) -> None:
        if read_marker(self._temporary.parent) is None:
            raise StoreExistsError(
                f"{self._doing[:1].upper()}{self._doing[1:]} at {self._path}: {self._temporary.parent} is no folder of "
                "fo-onnx (any more), and only there files are begun. Begin again."
            )

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
        with os_errors(self._path, self._doing):
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
        with os_errors(self._path, self._doing):
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
            with os_errors(self._path, self._doing):
                operations.sync(self._descriptor)
                descriptor, self._descriptor = self._descriptor, None
                os.close(descriptor)
                if before_rename is not None:
                    before_rename()
                require_replaceable(self._path, self._replaces, self._doing)
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
            # One that is discarded late, by the garbage collector, may find the file of a run that goes on in its place.
            if os.path.samestat(self._temporary.lstat(), self._status):
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


def write_bytes(
    path: Path,
    data: bytes,
    doing: str = "writing a file",
    *,
    temporary: Path | None = None,
    replaces: Callable[[Path], bool] | None = None,
    private: bool = False,
) -> None:
    """Writes a small file in one step; see `OutputFile`. Raises `StoreWriteError`, `StoreExistsError`."""
    with OutputFile(path, doing, temporary=temporary, replaces=replaces, private=private) as file:
        file.write(data)


def copy(
    source: Path, target: Path, doing: str = "copying a file", *, temporary: Path | None = None, private: bool = False
) -> None:
    """Copies a file, whole or not at all; see `OutputFile`. Raises `StoreWriteError`, `StoreExistsError`."""
    with source.open("rb") as content, OutputFile(target, doing, temporary=temporary, private=private) as file:
        while block := content.read(2**22):
            file.write(block)


def write_at(path: Path, offset: int, data: bytes, doing: str) -> int:
    """Puts `data` at `offset` of a file, cuts off what lay behind, and waits until it is on the disk.

    Returns:
        The new size. After a `StoreWriteError` the file is cut back to `offset` as far as that is possible.
    """
    with os_errors(path, doing):
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


# Folders ---------------------------------------------------------------------------------------------------------


def make_folder(folder: Path, doing: str, *, private: bool = False) -> None:
    """Makes a folder whose parent is there, durably. One that is there stays as it is; a link is refused.

    Args:
        folder: The folder.
        doing: What is being done, for messages.
        private: Whether nobody else may look into it.
    """
    with os_errors(folder, doing):
        if folder.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not folder.is_dir():
            operations.make_folder(folder, *((0o700,) if private else ()))
            operations.sync_folder(folder.parent)


def move_folder(folder: Path, target: Path, doing: str) -> None:
    """Gives a folder of ours another name, which must be free, and waits until the names are on the disk."""
    _require_ours(folder, doing)
    with os_errors(target, doing):
        if os.path.lexists(target):
            raise StoreExistsError(f"{doing[:1].upper()}{doing[1:]} at {target}: it is there. Choose another name.")
        operations.replace(folder, target)
        operations.sync_folder(target.parent)


def take_lock(folder: Path, wait_s: float = 0) -> BaseFileLock:
    """Locks a folder for one writer, waiting `wait_s` for another one to end; the lock is to be released.

    Raises:
        StoreError: Another process holds it.
        StoreWriteError: The operating system refuses.
        StoreExistsError: The file that would be the lock is somebody else's.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK
    with os_errors(path, "locking a folder"):
        if os.path.lexists(path) and not (stat.S_ISREG(path.lstat().st_mode) and path.lstat().st_size == 0):
            raise StoreExistsError(f"Opening {folder}: {LOCK} in it is no lock of fo-onnx. Choose another name.")
    lock = FileLock(path, timeout=wait_s, thread_local=False)
    try:
        lock.acquire()
    except Timeout as err:
        raise StoreError(
            f"Opening {folder}: another process is writing there. Wait until it ends, or choose another name."
        ) from err
    except (OSError, NotImplementedError) as err:
        raise StoreWriteError(
            f"Opening {folder}: its lock cannot be taken ({getattr(err, 'strerror', None) or err}). Look at the rights of "
            "the folder."
        ) from err
    return lock


def remove_entries(folder: Path, entries: Collection[str], doing: str) -> None:
    """Removes files of a folder of ours; each may be gone.

    Args:
        folder: The folder.
        entries: Relative names, one folder deep at most.
        doing: What is being done, for messages.

    Raises:
        StoreExistsError: The folder is not ours, or an entry or its folder is a link or no regular file; nothing was
            removed.
    """
    _require_ours(folder, doing)
    for name in entries:
        path = folder / name
        with os_errors(path, doing):
            if path.parent != folder and path.parent.is_symlink():
                raise StoreExistsError(f"{_begin(doing)} at {path}: {path.parent} is a link, which is never followed.")
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise StoreExistsError(f"{_begin(doing)} at {path}: it is no regular file, and nothing of fo-onnx.")
    for name in entries:
        with os_errors(folder / name, doing):
            operations.remove(folder / name)


def remove_file(path: Path, removes: Callable[[Path], bool], doing: str) -> None:
    """Removes a file that `removes` knows as ours; it may be gone. Raises `StoreExistsError` for any other, and for a link."""
    require_replaceable(path, removes, doing)
    with os_errors(path, doing):
        operations.remove(path)


def remove_folder(folder: Path, entries: Collection[str], doing: str) -> None:
    """Removes a folder of ours whole: it is moved aside first, so that a kill leaves no half of it under its name.

    Args:
        folder: The folder.
        entries: Relative names of its files beside marker and lock, as its owner knows them; each may be gone.
        doing: What is being done, for messages.

    Raises:
        StoreExistsError: It has no marker of ours, or holds something else, which is named; nothing was removed.
        StoreWriteError: The operating system refuses.
    """
    aside = _move_aside(folder, entries, doing)
    _remove_moved(aside, entries, doing)


def replace_folder(new: Path, target: Path, entries: Collection[str], doing: str) -> None:
    """Puts a folder of ours in the place of another one of ours, which is removed.

    A kill in between leaves `new` whole; who finds it so only has to rename it.

    Args:
        new: The folder.
        target: The folder in whose place it goes.
        entries: The files of that one, as for `remove_folder`.
        doing: What is being done, for messages.

    Raises:
        StoreExistsError: One of the two is not ours, or `target` holds something else, which is named.
    """
    _require_ours(new, doing)
    aside = _move_aside(target, entries, doing)
    move_folder(new, target, doing)
    try:
        _remove_moved(aside, entries, doing)
    except StoreError as err:
        # What was asked for is done; the next run that writes here removes the rest.
        log.warning("%s is in its place, but what it replaced is not removed yet: %s", target, err)


def abandon_folder(folder: Path) -> None:
    """Removes a folder that was made but never marked; any other stays as it is."""
    if may_begin_in(folder):
        with os_errors(folder, "removing a folder"):
            _remove_marks(folder)


def _move_aside(folder: Path, entries: Collection[str], doing: str) -> Path:
    _require_ours(folder, doing)
    if foreign := foreign_entries(folder, entries):
        raise StoreExistsError(
            f"{_begin(doing)} at {folder}: it holds what is not of fo-onnx and is never removed: {list_names(foreign)}. Move "
            "that elsewhere, or choose another name."
        )
    aside = folder.with_name(f"{_REMOVED}{os.urandom(8).hex()}")
    move_folder(folder, aside, doing)
    return aside


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Names for a message, cut short where there are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def remove_remains(parent: Path, entries_of: Callable[[Path], Collection[str]]) -> int:
    """Ends removals in `parent` that a kill cut short.

    Args:
        parent: The folder in which folders of ours may have been moved aside.
        entries_of: The files of such a folder, as for `remove_folder`.

    Returns:
        How many folders were removed.
    """
    removed = 0
    with suppress(OSError):
        for folder in list(parent.glob(f"{_REMOVED}*")):
            try:
                # The marker goes last: a folder without it is empty, or not ours.
                if read_marker(folder) is None:
                    if may_begin_in(folder) and not (folder / LOCK).exists():
                        operations.remove_folder(folder)
                        removed += 1
                elif not foreign_entries(folder, entries := entries_of(folder)):
                    _remove_moved(folder, entries, "removing remains")
                    removed += 1
            except (OSError, StoreError) as err:
                log.info("%s stays: %s", folder, err)
    return removed


def _remove_moved(folder: Path, entries: Collection[str], doing: str) -> None:
    """Removes the files, then the folders that they lie in, then the lock, and the marker last of all."""
    with os_errors(folder, doing):
        for name in entries:
            operations.remove(folder / name)
        for name in sorted({name.split("/")[0] for name in entries if "/" in name}):
            operations.remove_folder(folder / name)
        _remove_marks(folder)


@contextmanager
def work_folder(target: Path, doing: str) -> Iterator[Path]:
    """A folder of ours beside a target, ``<name>.partial``, in which its file is written; removed at the end.

    What a killed one left is removed when the next one begins.

    Args:
        target: The file that shall appear.
        doing: What is being done, for messages.

    Raises:
        StoreExistsError: What is there under that name is not such a folder.
        StoreError: Another process is writing there.
    """
    folder = target.with_name(f"{target.name}.partial")
    remains = read_marker(folder)
    if remains is not None and remains["kind"] == KIND_WORK:
        with _held(folder):
            remove_folder(folder, WORK_FILES, doing)
    elif os.path.lexists(folder) and not may_begin_in(folder):
        what = (
            "an unfinished run is there; resume=True goes on with it"
            if remains
            else "it is there, and is not of fo-onnx"
        )
        raise StoreExistsError(
            f"{_begin(doing)} at {target}: {folder} is needed, but {what}. Remove it, or choose another name."
        )
    remove_remains(target.parent, lambda _: WORK_FILES)
    try:
        make_folder(folder, doing)
    except StoreError:
        with suppress(StoreError):
            abandon_folder(folder)
        raise
    with _held(folder):
        try:
            write_marker(folder, MARKERS[-1], marker(KIND_WORK), doing)
            yield folder
        finally:
            # What cannot be removed now is removed by the next one, and hides no error.
            with suppress(StoreError):
                if read_marker(folder) is None:
                    abandon_folder(folder)
                else:
                    remove_folder(folder, WORK_FILES, doing)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private folder in the temporary directory, in which everything is ours; removed at the end.

    What killed processes of this user left there is removed first.
    """
    remove_temporary_remains()
    with os_errors(
        Path(tempfile.gettempdir() if tempfile.tempdir else os.environ.get("TMPDIR", "/tmp")),
        "making a temporary folder",
    ):
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY_FOLDER))
    # The lock comes first: a folder with a marker and a free lock is remains.
    with _held(folder):
        write_marker(folder, MARKERS[-1], marker(KIND_TEMPORARY), "making a temporary folder")
        try:
            yield folder
        finally:
            with suppress(StoreError):
                _remove_temporary(folder)


def remove_temporary_remains() -> int:
    """Removes the temporary folders that killed processes of this user left; how many."""
    removed = 0
    with suppress(OSError):
        for folder in list(Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_FOLDER}*")):
            table = read_marker(folder)
            status = folder.lstat()
            if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o077):
                continue
            # One that is not marked yet may have been made this very moment.
            begun = table is None and may_begin_in(folder) and time.time() - status.st_mtime > _BEGUN_S
            if not begun and (table is None or table["kind"] != KIND_TEMPORARY):
                continue
            # One that is in use is locked.
            with suppress(StoreError), _held(folder):
                _remove_temporary(folder)
                removed += 1
    return removed


def _remove_temporary(folder: Path) -> None:
    with os_errors(folder, "removing a temporary folder"):
        with os.scandir(folder) as entries:
            inside = [
                (Path(e.path), e.is_dir(follow_symlinks=False)) for e in entries if e.name not in (LOCK, *MARKERS)
            ]
        for path, is_folder in inside:
            if is_folder:
                operations.remove_tree(path)
            else:
                operations.remove(path)
        _remove_marks(folder)


def _remove_marks(folder: Path) -> None:
    """The lock, then the marker, last of all, then the folder."""
    for name in (*(name + TEMPORARY for name in MARKERS), LOCK, *reversed(MARKERS)):
        operations.remove(folder / name)
    operations.remove_folder(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    lock = take_lock(folder)
    try:
        yield
    finally:
        lock.release()


def write_marker(folder: Path, name: str, table: dict[str, Any], doing: str, *, private: bool = False) -> None:
    """Marks a folder that was just made, or that `may_begin_in` accepts, as ours.

    Args:
        folder: The folder.
        name: One of `MARKERS`.
        table: What `marker` gives, and more, as JSON types.
        doing: What is being done, for messages.
        private: Whether nobody else may read it.
    """
    path = folder / name
    text = json.dumps(table).encode()
    assert text.startswith(_MARKER_START), "a killed beginning is known by how its marker begins"
    temporary = folder / (name + TEMPORARY)
    with os_errors(path, doing):
        descriptor = operations.open(temporary, _NEW_FILE, *_mode(private))
        try:
            view = memoryview(text)
            while len(view):
                view = view[operations.write(descriptor, view) :]
            operations.sync(descriptor)
        finally:
            os.close(descriptor)
        require_replaceable(path, None, doing)
        operations.replace(temporary, path)
        operations.sync_folder(folder)


def _mode(private: bool) -> tuple[int, ...]:
    return (0o600,) if private else ()


def _require_ours(folder: Path, doing: str) -> None:
    if read_marker(folder) is None:
        what = "a link" if folder.is_symlink() else "no folder with the marker of fo-onnx"
        raise StoreExistsError(
            f"{_begin(doing)} at {folder}: it is {what}, and what fo-onnx did not make is never removed or replaced. Remove "
            "it yourself, or choose another name."
        )


def _begin(doing: str) -> str:
    return f"{doing[:1].upper()}{doing[1:]}"
