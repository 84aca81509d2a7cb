"""A cache of exports, since they are slow: seconds to minutes for a large net.

An entry is a folder named by a digest: of the model's name, weights and code, the versions of what converts it, the options
and the inputs. Two models can differ in what no digest sees, so a cached export is compared like a new one, and dropped if
it is not the same.

The comparison sees a few rows only, so that an entry must be this user's own: what belongs to somebody else, or may be
written by others, is not taken. An entry holds files of fixed names; its digest covers its key, its spec and its files.

``FO_ONNX_CACHE_DIR`` names another folder than the user's cache; ``FO_ONNX_CACHE_GB`` another limit than 10 (0 keeps
nothing). The entries that were used longest ago go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contracts.batch import Inputs
from ..contracts.exporter import Exporter
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.spec import ModelSpec
from ..control.run_control import current
from ..errors import FoOnnxError, OptionError, StoreError
from ..models.onnx_file import external_locations, file_sha256, rename_external_data
from ..store import files
from ..version import __version__

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("fo_onnx.cache")
FOLDER_VARIABLE = "FO_ONNX_CACHE_DIR"
LIMIT_VARIABLE = "FO_ONNX_CACHE_GB"
DEFAULT_LIMIT_GB = 10.0
SCHEMA = 2
_MODEL, _SPEC = "model.onnx", "spec.json"
_DATA = tuple(f"data.{i}" for i in range(16))
"""The names of external data in an entry. Exporters write one file; what has more than these is not kept."""
_NAMES = (_MODEL, _SPEC, *_DATA)
_FILES = (*_NAMES, *(name + files.TEMPORARY for name in _NAMES))
"""Everything that an entry may hold beside its marker."""
_SPEC_BYTES = 2**24
_DOING = "keeping an export in the cache"
_ENTRY = re.compile(r"[0-9a-f]{40}(\.tmp)?")
_LOCK_S = 60.0
"""Who waits longer for the lock goes on without the cache."""


@dataclass(frozen=True)
class CacheState:
    """What ``fo-onnx doctor`` shows of the cache.

    Attributes:
        folder: Where it lies.
        entries: How many exports it holds.
        size_bytes: What they take.
        limit_bytes: What they may take.
        problem: Why nothing is taken from it or kept in it; ``None`` if all is well.
    """

    folder: str
    entries: int
    size_bytes: int
    limit_bytes: int
    problem: str | None = None


class ExportCache:
    """Exported files in a folder, by key. Safe for several processes: each step holds the folder's lock."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Take a folder, which is made, for this user alone, when the first entry is kept.

        Args:
            folder: Where the entries lie.
            limit_bytes: What they may take together; 0 keeps nothing.
        """
        self.folder, self.limit_bytes = folder, limit_bytes

    @classmethod
    def of_user(cls) -> ExportCache:
        """Return the user's own cache, as the environment says.

        Raises:
            OptionError: The limit is no number.
        """
        said = os.environ.get(LIMIT_VARIABLE)
        try:
            limit_gb = DEFAULT_LIMIT_GB if said is None else float(said)
            if not 0 <= limit_gb < float("inf"):
                raise ValueError
        except ValueError:
            raise OptionError(
                f"the environment says {LIMIT_VARIABLE}={said!r}; gigabytes were expected, 0 to keep nothing."
            ) from None
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder:
            return cls(Path(folder).expanduser(), int(limit_gb * 1e9))
        import platformdirs

        return cls(platformdirs.user_cache_path("fo-onnx") / "exports", int(limit_gb * 1e9))

    def fetch(self, key: str, path: Path) -> ModelSpec | None:
        """Copy an entry's file to `path`, and its external data beside it.

        Args:
            key: The entry.
            path: A file in a folder of ours.

        Returns:
            The spec that the exporter gave, or ``None`` if there is no such entry, or none that may be taken.
        """
        entry = self.folder / key
        if not self.limit_bytes or not os.path.lexists(entry):
            return None
        if problem := _problem(self.folder) or _problem(entry):
            _warn_once(f"the cached export {entry} is not taken: {problem}")
            return None
        try:
            with self._locked():
                if not os.path.lexists(entry):
                    return None
                if problem := _problem_inside(entry):
                    _warn_once(f"the cached export {entry} is not taken: {problem}")
                    return None
                spec, digests = _read_record(entry, key)
                for name, digest in digests.items():
                    target = path if name == _MODEL else path.parent / name
                    files.copy(entry / name, target, "opening a cached export")
                    if file_sha256(target) != digest:
                        raise ValueError(f"{name} is damaged")
                os.utime(entry)
                return spec
        except StoreError as err:
            log.warning("the cached export %s cannot be taken: %s", entry, err)
        except (ValueError, KeyError, TypeError, RecursionError, FileNotFoundError) as err:
            log.warning("the cached export %s is damaged and is dropped: %s", entry, err)
            self.drop(key)
        except (OSError, NotImplementedError) as err:
            log.warning("the cached export %s cannot be taken: %s", entry, err)
        return None

    def keep(self, key: str, path: Path, spec: ModelSpec, external: onnx.ModelProto | None = None) -> None:
        """Copy an exported file into the cache, and make room. What hinders it is logged: a cache is no result.

        Args:
            key: The entry.
            path: The file, as it was exported.
            spec: The spec that the exporter gave.
            external: The graph of the file, which may be changed, if the model has external data.
        """
        if not self.limit_bytes:
            return
        try:
            locations = [] if external is None else external_locations(external)
            sources = dict(zip(_DATA, (path.parent / location for location in locations), strict=False))
            size = path.stat().st_size + sum(f.stat().st_size for f in sources.values())
            if size > self.limit_bytes or len(locations) > len(_DATA):
                return
            if problem := self._find_problem():
                _warn_once(f"an export could not be kept in the cache {self.folder}: {problem}")
                return
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self._make_room(size, key)
                if os.path.lexists(self.folder / key):
                    _remove(self.folder / key, _DOING)
                new = self._begin(key)
                try:
                    if external is None:
                        files.copy(path, new / _MODEL, _DOING, private=True)
                    else:
                        rename_external_data(external, dict(zip(locations, sources, strict=True)))
                        files.write_bytes(new / _MODEL, external.SerializeToString(), _DOING, private=True)
                    for name, file in sources.items():
                        files.copy(file, new / name, _DOING, private=True)
                    record = _record(key, spec, {name: file_sha256(new / name) for name in (_MODEL, *sources)})
                    files.write_bytes(new / _SPEC, json.dumps(record).encode(), _DOING, private=True)
                    files.move_folder(new, self.folder / key, _DOING)
                except BaseException:
                    with suppress(StoreError):
                        files.remove_folder(new, _FILES, _DOING)
                    raise
        except (OSError, NotImplementedError, FoOnnxError) as err:
            log.warning("an export could not be kept in the cache %s: %s", self.folder, err)

    def drop(self, key: str) -> None:
        """Remove an entry that may be gone. One that holds what is not of fo-onnx stays, and is logged."""
        try:
            with self._locked():
                if os.path.lexists(self.folder / key):
                    _remove(self.folder / key, "dropping a cached export")
        except (OSError, NotImplementedError, StoreError) as err:
            log.warning("%s", err)

    def clear(self) -> int:
        """Remove every entry.

        Returns:
            How many there were.

        Raises:
            StoreError: The cache is not this user's own, or some entry cannot be removed; all others are gone then.
        """
        if not os.path.lexists(self.folder):
            return 0
        if problem := _problem(self.folder):
            raise StoreError(f"Clearing the cache of exports at {self.folder}: {problem}")
        removed, stay = 0, []
        with self._locked():
            for entry in (*self._entries(), *self._entries(unfinished=True)):
                try:
                    _remove(entry, "clearing the cache of exports")
                    removed += entry.suffix != files.TEMPORARY
                except StoreError as err:
                    stay.append(str(err))
        if stay:
            more = f" (and {len(stay) - 1} more)" if len(stay) > 1 else ""
            raise StoreError(f"{removed} cached exports were removed, and {len(stay)} stay: {stay[0]}{more}")
        return removed

    def state(self) -> CacheState:
        """Return its folder, how many entries it has and what they take."""
        problem = self._find_problem()
        entries = self._entries() if problem is None and self.folder.is_dir() else []
        return CacheState(str(self.folder), len(entries), sum(map(_size, entries)), self.limit_bytes, problem)

    def _find_problem(self) -> str | None:
        if not os.path.lexists(self.folder):
            return None
        if problem := _problem(self.folder):
            return problem
        cure = f"name another one with {FOLDER_VARIABLE}."
        if not self.folder.is_dir():
            return f"{self.folder} is no folder; {cure}"
        if not os.access(self.folder, os.W_OK | os.X_OK):
            return f"{self.folder} may not be written to; {cure}"
        try:
            files.take_lock(self.folder, wait_s=_LOCK_S).release()
        except StoreError as err:
            return str(err)
        return None

    def _begin(self, key: str) -> Path:
        """Make the folder in which an entry is made. The lock's holder is the only one that makes such a folder."""
        new = self.folder / f"{key}{files.TEMPORARY}"
        if os.path.lexists(new) and not files.may_begin_in(new):
            files.remove_folder(new, _FILES, _DOING)
        files.make_folder(new, _DOING, private=True)
        files.write_marker(new, files.MARKERS[-1], files.marker(files.KIND_CACHED), _DOING, private=True)
        return new

    def _make_room(self, size: int, key: str) -> None:
        entries = [e for e in self._entries() if e.name != key]
        sizes = {e: _size(e) for e in entries}
        for entry in sorted(entries, key=lambda e: e.stat().st_mtime):
            if sum(sizes.values()) + size <= self.limit_bytes:
                return
            try:
                _remove(entry, "making room in the cache of exports")
                del sizes[entry]
            except StoreError as err:
                log.warning("%s", err)

    def _entries(self, *, unfinished: bool = False) -> list[Path]:
        """Return the folders of this cache, and no others that the user may have there."""
        return [
            e
            for e in self.folder.iterdir()
            if _ENTRY.fullmatch(e.name)
            and (e.suffix == files.TEMPORARY) == unfinished
            and e.is_dir()
            and not e.is_symlink()
        ]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if problem := _problem(self.folder):
            raise StoreError(f"Opening the cache of exports at {self.folder}: {problem}")
        left_s = current().left_s()
        lock = files.take_lock(self.folder, wait_s=_LOCK_S if left_s is None else min(_LOCK_S, left_s))
        try:
            files.remove_remains(self.folder, _files_of)
            yield
        finally:
            lock.release()


def key_of(exporter: Exporter, fingerprint: str, example: Inputs, options: ModelOptions, output: OutputOptions) -> str:
    """Return the digest of everything that an export depends on.

    Args:
        exporter: The framework's.
        fingerprint: The model's.
        example: The first rows; their names, dtypes and shapes matter.
        options: How the model is converted.
        output: Which of its outputs is meant.
    """
    import onnx

    parts: dict[str, Any] = {
        "schema": SCHEMA,
        "fo_onnx": __version__,
        "onnx": onnx.__version__,
        "framework": exporter.name,
        "versions": exporter.versions(),
        "fingerprint": fingerprint,
        "inputs": [[name, str(a.dtype), list(a.shape[1:])] for name, a in example.items()],
        "opset": options.opset,
        "output_name": output.output_name,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def state() -> dict[str, Any]:
    """Return the state of the user's cache as JSON types."""
    return asdict(ExportCache.of_user().state())


def _record(key: str, spec: ModelSpec, digests: dict[str, str]) -> dict[str, Any]:
    record = {"schema": SCHEMA, "key": key, "spec": spec.to_dict(), "files": digests}
    return record | {"digest": _digest(record)}


def _read_record(entry: Path, key: str) -> tuple[ModelSpec, dict[str, str]]:
    """Return the spec and the digests of the files of an entry.

    Raises:
        ValueError, KeyError, TypeError: It is damaged, of another schema, or another key's.
    """
    if (entry / _SPEC).stat().st_size > _SPEC_BYTES:
        raise ValueError(f"{_SPEC} is too large")
    record = json.loads((entry / _SPEC).read_bytes())
    digest = record.pop("digest")
    if record["schema"] != SCHEMA or record["key"] != key or digest != _digest(record):
        raise ValueError(f"{_SPEC} is of another entry or schema, or was changed")
    digests = record["files"]
    if _MODEL not in digests or not set(digests) <= {_MODEL, *_DATA}:
        raise ValueError(f"{_SPEC} names other files than an entry has")
    return ModelSpec.from_dict(record["spec"]), digests


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _problem(path: Path) -> str | None:
    """Return why a folder or file of the cache is not taken, with the cure; ``None`` if it is this user's alone."""
    cure = f"remove it, or name a folder of your own with {FOLDER_VARIABLE}."
    try:
        status = path.lstat()
    except OSError as err:
        return f"it cannot be looked at ({err.strerror}); {cure}"
    if stat.S_ISLNK(status.st_mode):
        return f"{path} is a link, and links are not followed; {cure}"
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return f"{path} is neither a folder nor a regular file; {cure}"
    if not hasattr(os, "getuid"):  # Windows: a user's folders are the user's
        return None
    if status.st_uid != os.getuid():
        return f"{path} belongs to another user (number {status.st_uid}), who could put another model there; chown it, {cure}"
    if status.st_mode & 0o022:
        return f"others may write to {path}, and could put another model there; chmod go-w it, {cure}"
    return None


def _problem_inside(entry: Path) -> str | None:
    """Return the `_problem` of an entry, or of a file in it."""
    return next(filter(None, map(_problem, (entry, *sorted(entry.iterdir())))), None)


def _files_of(entry: Path) -> tuple[str, ...]:
    """Return the files that an entry may hold."""
    return _FILES


def _remove(entry: Path, doing: str) -> None:
    """Remove an entry, whole or begun. Raises `StoreError` if it holds what is not of fo-onnx, which is named."""
    if files.read_marker(entry) is None and files.may_begin_in(entry):
        # A kill came before its marker.
        files.write_marker(entry, files.MARKERS[-1], files.marker(files.KIND_CACHED), doing)
    files.remove_folder(entry, _FILES, doing)


def _warn_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.warning("%s", text)


_said: set[str] = set()


def _size(entry: Path) -> int:
    try:
        return sum(f.lstat().st_size for f in entry.iterdir())
    except FileNotFoundError:  # another process has just removed it
        return 0
