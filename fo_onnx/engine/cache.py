"""Exports kept by content, since they are slow: seconds to minutes for a large net.

An entry is a folder named by the digest of everything that an export depends on and that can be told: the model's
structure and weights, the versions of what converts it, the options, the inputs. Two models can differ in what no digest
sees, so a hit is compared like a fresh export, and dropped where it is not the same.

``FO_ONNX_CACHE_DIR`` names another folder than the user's cache; ``FO_ONNX_CACHE_GB`` another limit than 10 (0 keeps
nothing). The entries that were used longest ago go first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError, StoreError
from ..model import external_files, load_proto
from ..options import ModelOptions, OutputOptions
from ..protocols import Exporter, Inputs
from ..spec import ModelSpec
from ..store import files
from ..version import __version__

log = logging.getLogger("fo_onnx.cache")
FOLDER_VARIABLE = "FO_ONNX_CACHE_DIR"
LIMIT_VARIABLE = "FO_ONNX_CACHE_GB"
DEFAULT_LIMIT_GB = 10.0
SCHEMA = 1
_MODEL, _SPEC, _LOCK = "model.onnx", "spec.json", ".lock"
_DOING = "keeping an export in the cache"
_ENTRY = re.compile(r"[0-9a-f]{40}(\.tmp)?")
_LOCK_S = 60.0
"""Who waits longer for the lock goes on without the cache."""


@dataclass(frozen=True)
class CacheState:
    """What ``fo-onnx doctor`` shows of the cache."""

    folder: str
    entries: int
    size_bytes: int
    limit_bytes: int


class ExportCache:
    """Exported files in a folder, by key. Safe for several processes: each step holds the folder's lock."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Takes a folder, which is made when the first entry is kept.

        Args:
            folder: Where the entries lie.
            limit_bytes: What they may take together; 0 keeps nothing.
        """
        self.folder, self.limit_bytes = folder, limit_bytes

    @classmethod
    def of_user(cls) -> ExportCache:
        """The user's own, as the environment says.

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
        """Copies an entry's file (and its external data, beside it) to `path`.

        Returns:
            The spec that the exporter gave, or ``None`` where there is no such entry, or none that is whole.
        """
        entry = self.folder / key
        if not self.limit_bytes or not entry.is_dir():
            return None
        try:
            with self._locked():
                if not entry.is_dir():
                    return None
                kept = json.loads((entry / _SPEC).read_bytes())
                for name, digest in kept["files"].items():
                    if not (entry / name).is_file():
                        raise ValueError(f"{name} is missing")
                    target = path if name == _MODEL else path.parent / name
                    files.copy(entry / name, target, "opening a cached export")
                    if _digest(target) != digest:
                        raise ValueError(f"{name} is damaged")
                os.utime(entry)
                return ModelSpec.from_dict(kept["spec"])
        except (ValueError, KeyError, TypeError) as err:
            log.warning("the cached export %s is damaged and is dropped: %s", entry, err)
            self.drop(key)
        except (OSError, NotImplementedError, StoreError) as err:
            log.warning("the cached export %s cannot be taken: %s", entry, err)
        return None

    def keep(self, key: str, path: Path, spec: ModelSpec) -> None:
        """Copies an exported file into the cache, and makes room. What hinders it is logged: a cache is no result."""
        sources = {_MODEL: path} | {f.name: f for f in external_files(load_proto(path), path.parent)}
        size = sum(f.stat().st_size for f in sources.values())
        if size > self.limit_bytes:
            return
        record = {"spec": spec.to_dict(), "files": {name: _digest(file) for name, file in sources.items()}}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._make_room(size, key)
                # The lock's holder is the only one that makes such a folder; one that is there was left by a kill.
                new = self.folder / f"{key}{files.TEMPORARY}"
                _remove(new, _DOING)
                files.make_folder(new, _DOING)
                for name, file in sources.items():
                    files.copy(file, new / name, _DOING)
                files.write_bytes(new / _SPEC, json.dumps(record).encode(), _DOING)
                _remove(self.folder / key, _DOING)
                files.move(new, self.folder / key, _DOING)
        except (OSError, NotImplementedError, StoreError) as err:
            log.warning("an export could not be kept in the cache %s: %s", self.folder, err)

    def drop(self, key: str) -> None:
        """Removes an entry that may be gone."""
        try:
            with self._locked():
                _remove(self.folder / key, "dropping a cached export")
        except (OSError, NotImplementedError, StoreError) as err:
            log.warning("%s", err)

    def clear(self) -> int:
        """Removes every entry.

        Returns:
            How many there were.

        Raises:
            StoreError: One cannot be removed.
        """
        if not self.folder.is_dir():
            return 0
        with self._locked():
            entries = self._entries()
            for entry in (*entries, *self._entries(unfinished=True)):
                files.remove_tree(entry, "clearing the cache of exports")
        return len(entries)

    def state(self) -> CacheState:
        """Its folder, how many entries it has and what they take."""
        entries = self._entries() if self.folder.is_dir() else []
        return CacheState(str(self.folder), len(entries), sum(map(_size, entries)), self.limit_bytes)

    def _make_room(self, size: int, key: str) -> None:
        entries = [e for e in self._entries() if e.name != key]
        sizes = {e: _size(e) for e in entries}
        for entry in sorted(entries, key=lambda e: e.stat().st_mtime):
            if sum(sizes.values()) + size <= self.limit_bytes:
                return
            files.remove_tree(entry, "making room in the cache of exports")
            del sizes[entry]

    def _entries(self, *, unfinished: bool = False) -> list[Path]:
        """The folders of this cache, and no others that the user may have there."""
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
        from filelock import FileLock

        with FileLock(self.folder / _LOCK, timeout=_LOCK_S):
            yield


def key_of(exporter: Exporter, fingerprint: str, example: Inputs, options: ModelOptions, output: OutputOptions) -> str:
    """The digest of everything that an export depends on.

    Args:
        exporter: The framework's.
        fingerprint: The model's.
        example: The first rows; their names, dtypes and shapes matter.
        options: How the model is converted.
        output: Which of its outputs is meant.
    """
    import onnx

    told: dict[str, Any] = {
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
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:40]


def state() -> dict[str, Any]:
    """The user's cache as JSON types."""
    return asdict(ExportCache.of_user().state())


def _remove(entry: Path, doing: str) -> None:
    if entry.is_dir():
        files.remove_tree(entry, doing)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _size(entry: Path) -> int:
    try:
        return sum(f.stat().st_size for f in entry.iterdir())
    except FileNotFoundError:  # another process has just removed it
        return 0
