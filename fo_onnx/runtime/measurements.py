"""Records of what was measured on this machine, kept between processes in the user's cache, by kind and key.

A measurement is no result. What hinders it is logged, and whoever asks for it measures again. As a record decides how
models are run, it must be this user's own: what belongs to somebody else, or may be written by others, is not taken.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..control.run_control import current
from ..errors import FoOnnxError, StoreError, first_line
from ..store import files
from ..store.user_cache import limit_bytes, measurements_folder, require_own, require_own_folder, warn_once
from ..version import __version__
from .devices import cpu_cores

log = logging.getLogger("fo_onnx.cache")
SCHEMA = 1
MOST_RECORDS = 2000
MOST_BYTES = 1 << 16
"""A record is a few hundred bytes; one above this is not read, and not kept. All of them take 128 MB at the very most."""
_DOING = "keeping a measurement"
_NAME = re.compile(r"[a-z][a-z0-9-]*-[0-9a-f]{40}\.json")
_LOCK_S = 5.0


class Measurements:
    """Records in a folder, by kind and key. Safe for several processes: a record is replaced in one step."""

    def __init__(self, folder: Path, *, is_kept: bool = True, most_records: int = MOST_RECORDS) -> None:
        """Take a folder, which is made, for this user alone, when the first record is kept.

        Args:
            folder: The folder.
            is_kept: Whether anything is kept and read at all.
            most_records: Above this number, those that were used longest ago go.
        """
        self.folder, self.is_kept, self.most_records = folder, is_kept, most_records

    @classmethod
    def of_user(cls) -> Measurements:
        """Return the user's own, as the environment says (`fo_onnx.store.user_cache`).

        Raises:
            OptionError: The limit of the cache is no number.
        """
        return cls(measurements_folder(), is_kept=limit_bytes() > 0)

    def read(self, kind: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what was kept on this machine under this key, or ``None`` if there is nothing that may be taken.

        Args:
            kind: What was measured: lower-case letters, digits and hyphens.
            key: What it depends on, as JSON types. The processor, the number of usable cores and the version of fo-onnx
                belong to every key.
        """
        key = _whole_key(key)
        path = self.folder / _file_name(kind, key)
        if not self.is_kept or not os.path.lexists(path):
            return None
        try:
            require_own(self.folder)
            require_own(path)
            value = _read_record(path, kind, key)
            # The order in which records go; a folder that may not be written to is read all the same.
            with contextlib.suppress(OSError):
                os.utime(path)
            return value
        except FileNotFoundError:
            return None  # another process has just made room
        except (OSError, StoreError) as err:
            warn_once(f"the measurement {path} is not taken: {err}")
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            warn_once(f"the measurement {path} is damaged ({first_line(err)}); a new one replaces it")
        return None

    def keep(self, kind: str, key: Mapping[str, Any], value: Mapping[str, Any]) -> None:
        """Keep a record in the place of one that may be there, and make room. What hinders it is logged.

        Args:
            kind: What was measured.
            key: What it depends on; see `read`.
            value: What was found, as JSON types, without NaN and infinity.
        """
        if not self.is_kept:
            return
        key = _whole_key(key)
        record = {"schema": SCHEMA, "kind": kind, "key": key, "value": dict(value)}
        content = json.dumps(record | {"digest": _digest(record)}, allow_nan=False).encode()
        path = self.folder / _file_name(kind, key)
        if len(content) > MOST_BYTES:
            log.warning("%s: it takes %d bytes, and at most %d are kept", _DOING, len(content), MOST_BYTES)
            return
        try:
            for folder in (self.folder.parent, self.folder):
                if not os.path.lexists(folder):
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                # Only the lock's holder writes, so that what is not finished is what a kill left.
                self._remove(p.name for p in self._records(files.TEMPORARY))
                others = sorted((p for p in self._records() if p != path), key=_time_of_use)
                self._remove(p.name for p in others[: max(len(others) + 1 - self.most_records, 0)])
                files.write_bytes(path, content, _DOING, private=True)
        except (OSError, FoOnnxError) as err:
            warn_once(f"a measurement could not be kept in {self.folder}: {err}")

    def clear(self) -> int:
        """Remove every record, and the folder if nothing else is in it; return how many records there were.

        Raises:
            StoreError: The folder is not this user's own, or a record cannot be removed.
        """
        if not os.path.lexists(self.folder):
            return 0
        with self._locked():
            names = [p.name for p in self._records()]
            self._remove([*names, *(p.name for p in self._records(files.TEMPORARY))])
            if not files.foreign_entries(self.folder, ()):
                files.remove_folder(self.folder, (), "removing measurements")
        return len(names)

    def count(self) -> int:
        """Return how many records there are."""
        return len(self._records()) if self.folder.is_dir() else 0

    def _records(self, suffix: str = "") -> list[Path]:
        """Return the files that are named as records are; nothing else in the folder is ever touched."""
        return [
            p
            for p in self.folder.iterdir()
            if p.suffix == (suffix or ".json") and _NAME.fullmatch(p.name.removesuffix(suffix))
        ]

    def _remove(self, names: Iterator[str] | list[str]) -> None:
        files.remove_entries(self.folder, list(names), "removing measurements")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock. The folder must be this user's own, and ours, or empty. Raises `StoreError`."""
        require_own_folder(self.folder)
        if files.read_marker(self.folder) is None and not files.may_begin_in(self.folder):
            raise StoreError(f"{self.folder} holds what is not of fo-onnx; move that elsewhere.")
        left_s = current().left_s()
        lock = files.take_lock(self.folder, wait_s=_LOCK_S if left_s is None else min(_LOCK_S, left_s))
        try:
            if files.read_marker(self.folder) is None:
                files.write_marker(
                    self.folder, files.MARKERS[-1], files.marker(files.KIND_MEASUREMENTS), _DOING, private=True
                )
            yield
        finally:
            lock.release()


def _whole_key(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return a key with what belongs to every one, as it comes back from a file: lists for tuples."""
    machine = {"processor": _processor(), "cores": cpu_cores()}
    whole: dict[str, Any] = json.loads(json.dumps({**key, "machine": machine, "fo_onnx": __version__}))
    return whole


@functools.cache
def _processor() -> str:
    """Return the processor's name; the home folder, and with it the cache, may be shared by unlike machines."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _file_name(kind: str, key: dict[str, Any]) -> str:
    name = f"{kind}-{_digest([kind, key])[:40]}.json"
    assert _NAME.fullmatch(name), f"{kind!r} names no kind of measurement"
    return name


def _read_record(path: Path, kind: str, key: dict[str, Any]) -> dict[str, Any]:
    """Return the value of a record.

    Raises:
        ValueError, KeyError, TypeError: It is damaged, of another schema, or another key's.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("it is too large")
    record = json.loads(path.read_bytes())
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    digest = record.pop("digest")
    if digest != _digest(record):
        raise ValueError("it was changed")
    if (record["schema"], record["kind"], record["key"]) != (SCHEMA, kind, key) or not isinstance(
        record["value"], dict
    ):
        raise ValueError("it is of another key or schema")
    value: dict[str, Any] = record["value"]
    return value


def _digest(record: Any) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _time_of_use(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
