"""A cache of exports, since they are slow: seconds to minutes for a large net.

An entry is a folder named by a digest: of the model's name, weights and code, the versions of what converts it, the options
and the inputs. Two models can differ in what no digest sees, so a cached export is compared like a new one, and dropped if
it is not the same.

The comparison sees a few rows only, so that an entry must be this user's own: what belongs to somebody else, or may be
written by others, is not taken. An entry holds files of fixed names; its digest covers its key, its spec and its files.

`fo_onnx.store.user_cache` says where it lies and how large it may be. The entries that were used longest ago go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..contracts.batch import Inputs
from ..contracts.exporter import Exporter
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.spec import ModelSpec
from ..control.run_control import current
from ..errors import FoOnnxError, StoreError, first_line
from ..models.onnx_file import file_sha256, rename_external_data
from ..store import files
from ..store.user_cache import exports_folder, limit_bytes, require_own, require_own_folder, warn_once
from ..version import __version__

log = logging.getLogger("fo_onnx.cache")
SCHEMA = 4
_MODEL, _DATA, _SPEC = "model.onnx", "data.0", "spec.json"
_FILES = tuple(name + suffix for name in (_MODEL, _DATA, _SPEC) for suffix in ("", files.TEMPORARY))
"""Everything that an entry may hold beside its marker."""
_SPEC_BYTES = 2**24
_DOING = "keeping an export in the cache"
_KEY = re.compile(r"[0-9a-f]{40}")
_LOCK_S = 60.0
"""A process that waits longer for the lock works without the cache."""


class ExportCache:
    """Exported files in a folder, by key. Safe for several processes: each step holds the folder's lock."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Take a folder, which is made, for this user alone, when the first entry is kept; a limit of 0 keeps nothing."""
        self.folder, self.limit_bytes = folder, limit_bytes

    @classmethod
    def of_user(cls) -> ExportCache:
        """Return the user's own cache, as the environment says.

        Raises:
            OptionError: The limit is no number.
        """
        return cls(exports_folder(), limit_bytes())

    def holds(self, key: str) -> bool:
        """Return whether there is an entry; `fetch` may find that it cannot be taken."""
        return self.limit_bytes > 0 and os.path.lexists(self.folder / key)

    def fetch(self, key: str, path: Path) -> ModelSpec | None:
        """Copy an entry's file to `path`, in a folder of ours, and its external data beside it.

        Returns:
            The spec that the exporter gave, or ``None`` if there is no such entry, or none that may be taken.
        """
        entry = self.folder / key
        if not self.holds(key):
            return None
        try:
            with self._locked():
                if not os.path.lexists(entry):
                    return None  # another process has just made room
                require_own(entry)
                for file in sorted(entry.iterdir()):
                    require_own(file)
                spec, digests = _read_record(entry, key)
                for name, digest in digests.items():
                    target = path if name == _MODEL else path.parent / name
                    files.copy(entry / name, target, "opening a cached export")
                    if file_sha256(target) != digest:
                        raise ValueError(f"{name} is damaged")
                os.utime(entry)
                return spec
        except (OSError, StoreError) as err:
            warn_once(f"the cached export {entry} is not taken: {err}")
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            warn_once(f"the cached export {entry} is damaged ({first_line(err)}); a new export replaces it")
        return None

    def keep(self, key: str, path: Path, spec: ModelSpec, locations: Sequence[str] = ()) -> None:
        """Copy an exported file into the cache, and make room. What hinders it is logged: a cache is no result.

        Args:
            key: The entry.
            path: The file, as it was exported.
            spec: The spec that the exporter gave.
            locations: Where its external data lie, relative to it. Exporters write one file; what has more is not kept.
        """
        if not self.limit_bytes or len(locations) > 1:
            return
        try:
            data = [path.parent / location for location in locations]
            size = sum(file.stat().st_size for file in (path, *data))
            if size > self.limit_bytes:
                return
            if not os.path.lexists(self.folder):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                self._make_room(size, key)
                if os.path.lexists(self.folder / key):
                    _remove(self.folder / key, _DOING)
                new = self.folder / f"{key}{files.TEMPORARY}"
                if os.path.lexists(new):
                    # What is not of fo-onnx in it has kept it from being removed; the error names it.
                    _remove(new, _DOING)
                files.make_folder(new, _DOING, private=True)
                try:
                    files.write_marker(new, files.MARKERS[-1], files.marker(files.KIND_CACHED), _DOING, private=True)
                    if data:
                        import onnx

                        proto = onnx.load_model(path, load_external_data=False)
                        rename_external_data(proto, {locations[0]: _DATA})
                        files.write_bytes(new / _MODEL, proto.SerializeToString(), _DOING, private=True)
                        files.copy(data[0], new / _DATA, _DOING, private=True)
                    else:
                        files.copy(path, new / _MODEL, _DOING, private=True)
                    digests = {name: file_sha256(new / name) for name in (_MODEL, _DATA)[: 1 + len(data)]}
                    record = {"schema": SCHEMA, "key": key, "spec": spec.to_dict(), "files": digests}
                    record["digest"] = _digest(record)
                    files.write_bytes(new / _SPEC, json.dumps(record).encode(), _DOING, private=True)
                    files.move_folder(new, self.folder / key, _DOING)
                except BaseException:
                    with suppress(StoreError):
                        _remove(new, _DOING)
                    raise
        except (OSError, FoOnnxError) as err:
            warn_once(f"an export could not be kept in the cache {self.folder}: {err}")

    def drop(self, key: str) -> None:
        """Remove an entry that may be gone. One that holds what is not of fo-onnx stays, and is logged."""
        try:
            with self._locked():
                if os.path.lexists(self.folder / key):
                    _remove(self.folder / key, "dropping a cached export")
        except (OSError, StoreError) as err:
            log.warning("%s", err)

    def clear(self) -> int:
        """Remove every entry, and return how many there were.

        Raises:
            StoreError: The cache is not this user's own, or some entry cannot be removed; all others are gone then.
        """
        if not os.path.lexists(self.folder):
            return 0
        removed, stay = 0, []
        try:
            with self._locked():
                for entry in (*self._entries(), *self._entries(files.TEMPORARY)):
                    try:
                        _remove(entry, "clearing the cache of exports")
                        removed += 1
                    except StoreError as err:
                        stay.append(str(err))
        except StoreError as err:
            raise StoreError(f"Clearing the cache of exports at {self.folder}: {err}") from err
        if stay:
            more = f" (and {len(stay) - 1} more)" if len(stay) > 1 else ""
            raise StoreError(f"{removed} cached exports were removed, and {len(stay)} stay: {stay[0]}{more}")
        return removed

    def state(self) -> dict[str, Any]:
        """Return what ``fo-onnx doctor`` shows of the cache, as JSON types.

        These are its folder, how many entries it has, the bytes that they take and may take, and the problem that nothing
        is taken from it or kept in it for, if there is one.
        """
        problem, sizes = None, []
        if os.path.lexists(self.folder):
            try:
                with self._locked():
                    sizes = [_size(entry) for entry in self._entries()]
            except (OSError, StoreError) as err:
                problem = str(err)
        return {
            "folder": str(self.folder),
            "entries": len(sizes),
            "size_bytes": sum(sizes),
            "limit_bytes": self.limit_bytes,
            "problem": problem,
        }

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

    def _entries(self, suffix: str = "") -> list[Path]:
        """Return the folders of this cache, and no others that the user may have there."""
        return [
            e
            for e in self.folder.iterdir()
            if _KEY.fullmatch(e.name.removesuffix(suffix)) and e.suffix == suffix and e.is_dir() and not e.is_symlink()
        ]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of the cache, which must be this user's own. Raises `StoreError`."""
        require_own_folder(self.folder)
        left_s = current().left_s()
        lock = files.take_lock(self.folder, wait_s=_LOCK_S if left_s is None else min(_LOCK_S, left_s))
        try:
            files.remove_remains(self.folder, lambda _: _FILES)
            # Only the lock's holder makes entries, so that one that is not finished is what a kill left.
            for entry in self._entries(files.TEMPORARY):
                with suppress(StoreError):
                    _remove(entry, "removing the beginning of a cached export")
            yield
        finally:
            lock.release()


def key_of(exporter: Exporter, fingerprint: str, example: Inputs, options: ModelOptions, output: OutputOptions) -> str:
    """Return the digest of everything that an export depends on; of the rows, names, dtypes and shapes matter."""
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


def _read_record(entry: Path, key: str) -> tuple[ModelSpec, dict[str, str]]:
    """Return the spec and the digests of the files of an entry.

    Raises:
        ValueError, KeyError, TypeError: It is damaged, of another schema, or another key's.
    """
    if (entry / _SPEC).stat().st_size > _SPEC_BYTES:
        raise ValueError(f"{_SPEC} is too large")
    record = json.loads((entry / _SPEC).read_bytes())
    if not isinstance(record, dict):
        raise ValueError(f"{_SPEC} holds no JSON object")
    digest = record.pop("digest")
    if record["schema"] != SCHEMA or record["key"] != key or digest != _digest(record):
        raise ValueError(f"{_SPEC} is of another entry or schema, or was changed")
    digests = record["files"]
    if _MODEL not in digests or not set(digests) <= {_MODEL, _DATA}:
        raise ValueError(f"{_SPEC} names other files than an entry has")
    return ModelSpec.from_dict(record["spec"]), digests


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _remove(entry: Path, doing: str) -> None:
    """Remove an entry, whole or begun. Raises `StoreError` if it holds what is not of fo-onnx, which is named."""
    if files.read_marker(entry) is None and files.may_begin_in(entry):
        # A kill came before its marker.
        files.write_marker(entry, files.MARKERS[-1], files.marker(files.KIND_CACHED), doing)
    files.remove_folder(entry, _FILES, doing)


def _size(entry: Path) -> int:
    return sum(f.lstat().st_size for f in entry.iterdir())
