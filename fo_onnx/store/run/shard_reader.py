"""A run folder as it is read: the rows of its shards one after another, and meta."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from ...distributions.columns import COLUMNS, Columns, Layout
from ...errors import StoreError, reading
from ...guards.limits import check_regular
from .. import files
from ..formats.file_rows import read_stamp
from ..formats.parquet import ParquetRows, read_across
from ..schema import check_against_rows, check_meta, check_version, minimal_meta
from .journal import Journal, Shard

RUN, MANIFEST = files.MARKERS[:2]
ERRORS, INPUTS, DATA = "errors.jsonl", "inputs.digests", "data"
DIGEST_BYTES = 8
"""The size of the digest of one row's input in `INPUTS`."""
_OPEN_FILES = 2
_LARGEST_RECORD_BYTES = 2**30


class ShardRows:
    """The rows of the finished shards of a run folder as one. At most two files are open at a time."""

    in_memory = False

    def __init__(self, folder: Path, shards: Sequence[Shard], layout: Layout) -> None:
        self.where = str(folder)
        self._folder = folder / DATA
        self._shards = [s for s in shards if s.rows]
        self._starts = list(accumulate((s.rows for s in self._shards), initial=0))
        self.layout = layout
        self.length = self._starts[-1]
        self.step = max(1, min(16_384, 2**24 // layout.classes))
        self._open: dict[int, ParquetRows] = {}
        # A run that replaces this one makes other files of the same names.
        self._stamps = [read_stamp(self._folder / s.file) for s in self._shards]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open files."""
        return self.__dict__ | {"_open": {}}

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Decode what is asked for. Raises `StoreError` if a shard is damaged, gone or replaced."""
        return read_across(
            self._starts, start, stop, self.layout, columns, lambda i, a, b: self._read_shard(i, a, b, columns)
        )

    def _read_shard(self, i: int, start: int, stop: int, columns: Collection[str]) -> Columns:
        with reading(self._folder / self._shards[i].file, StoreError):
            return self._open_shard(i).read(start, stop, columns)

    def _open_shard(self, i: int) -> ParquetRows:
        if i not in self._open:
            shard = self._shards[i]
            path = self._folder / shard.file
            rows = ParquetRows(path)
            if read_stamp(path) != self._stamps[i]:
                raise StoreError(
                    f"Reading {self.where}: {DATA}/{shard.file} was replaced since the folder was opened, by another run "
                    "perhaps. Load the folder again."
                )
            if rows.length != shard.rows or rows.layout != self.layout:
                raise StoreError(
                    f"Reading {rows.where}: {rows.length} rows with the columns {rows.layout}; the journal says "
                    f"{shard.rows} with {self.layout}. The file was replaced."
                )
            # The oldest is closed: rows are read in order, mostly.
            while len(self._open) >= _OPEN_FILES:
                del self._open[next(iter(self._open))]
            self._open[i] = rows
        return self._open[i]


def read_run_folder(folder: Path) -> tuple[ShardRows, dict[str, Any]]:
    """Return the rows and meta of a run folder; of an unfinished one its finished rows, and ``meta["complete"]`` false.

    Raises:
        StoreError: It is no run folder, a shard is gone or cut short, or the schema is newer.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        table = read_json(manifest)
        check_version(table, f"Reading {manifest}", "its schema")
        meta = check_meta(table.get("meta"), str(manifest))
        shards = list_manifest_shards(table, manifest)
        layout = Layout.from_dict(table.get("layout"), str(manifest))
        remedy = "resume=True runs its rows again"
    else:
        run = read_run(folder)
        journal = Journal(folder)
        if journal.damage is not None:
            raise journal.damage
        if journal.layout is None:
            raise StoreError(f"Reading {folder}: an unfinished run that has no rows yet; resume=True continues it.")
        shards, layout = journal.shards, Layout.from_dict(journal.layout, "the journal")
        # What the run had planned to write, as far as it holds for the rows that are there.
        own = run["settings"].get("meta") or {}
        meta = check_meta(minimal_meta(layout, None) | (own if isinstance(own, dict) else {}), str(folder / RUN))
        meta["rows"] = count_rows(shards)
        meta["complete"] = False
        remedy = "resume=True continues from the rows before it"
    for shard in shards:
        if problem := find_shard_problem(folder, shard, hashing=False):
            raise StoreError(f"Reading {folder}: {problem}; {remedy}.")
    rows = ShardRows(folder, shards, layout)
    check_against_rows(meta, rows)
    return rows, meta


def count_rows(shards: Sequence[Shard]) -> dict[str, int]:
    """Return the numbers of rows that were written, left out and written down, as meta has them."""
    return {
        "written": sum(s.rows for s in shards),
        "skipped": sum(s.bad_rows for s in shards if not s.recorded),
        "quarantined": sum(s.bad_rows for s in shards if s.recorded),
    }


def read_run(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says. Raises `StoreError` if it is not there, damaged, or of a newer schema."""
    path = folder / RUN
    if not path.exists():
        raise StoreError(f"Reading {folder}: a folder without {RUN} and {MANIFEST}, so no run folder of fo-onnx.")
    table = read_json(path)
    check_version(table, f"Reading {path}", "its schema")
    if not isinstance(table.get("identity"), dict) or not isinstance(table.get("settings"), dict):
        raise StoreError(f"Reading {path}: identity and settings were expected; there are {', '.join(table)}.")
    return table


def list_manifest_shards(table: dict[str, Any], path: Path) -> list[Shard]:
    """Return the shards that a manifest lists. Raises `StoreError` if they are not as this version knows them."""
    with reading(f"{path}, its list of shards", StoreError):
        shards = [Shard(**entry) for entry in table["shards"]]
        if [s.start for s in shards] != [0, *(s.stop for s in shards)][:-1]:
            raise ValueError("shards that do not follow one another")
    return shards


def find_shard_problem(folder: Path, shard: Shard, *, hashing: bool) -> str | None:
    """Return what is wrong with a shard's file, if anything; with `hashing` its digest is compared too."""
    path = folder / DATA / shard.file
    name = f"the shard {DATA}/{shard.file}"
    # From what is cheap to what is dear: a run that is resumed looks at every shard.
    if path.is_symlink() or path.parent.is_symlink():
        return f"{name} is reached by a link, which is never followed"
    if not path.is_file():
        return f"{name} is not there"
    if (size := path.stat().st_size) != shard.bytes:
        return f"{name} has {size} bytes, {shard.bytes} were written"
    if hashing:
        with reading(path, StoreError), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            return f"the sha256 of {name} does not match: its content changed after it was written"
    return None


def find_problems(folder: Path, shards: Sequence[Shard]) -> Iterator[tuple[int, str]]:
    """Yield the number of each shard that is damaged, or whose bad rows or digests of inputs are, and what is wrong."""
    errors_start = 0
    for number, shard in enumerate(shards):
        problems = find_shard_problem(folder, shard, hashing=True), _find_companion_problem(folder, shard, errors_start)
        yield from ((number, problem) for problem in problems if problem is not None)
        errors_start += shard.errors_bytes


def _find_companion_problem(folder: Path, shard: Shard, errors_start: int) -> str | None:
    """Return what is wrong with what belongs to a shard, if anything: lines of bad rows, digests of inputs."""
    pieces = [(ERRORS, errors_start, shard.errors_bytes, shard.errors_crc32)]
    if shard.inputs_crc32 is not None:
        start, stop = DIGEST_BYTES * shard.start, DIGEST_BYTES * shard.stop
        pieces.append((INPUTS, start, stop - start, shard.inputs_crc32))
    for name, start, size, crc32 in pieces:
        if size and zlib.crc32(read_bytes(folder / name, start, size) or b"") != crc32:
            return f"{name} changed where it speaks of positions {shard.start} to {shard.stop - 1}"
    return None


def read_bytes(path: Path, start: int, size: int) -> bytes | None:
    """Return `size` bytes of a file from `start` on; ``None`` if they are not there, or behind a link."""
    try:
        if path.is_symlink():
            return None
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError:
        return None
    return data if len(data) == size else None


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises `StoreError`."""
    with reading(path, StoreError):
        check_regular(path, StoreError)
        if path.stat().st_size > _LARGEST_RECORD_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes are no record of a run")
        table = json.loads(path.read_bytes())
    if not isinstance(table, dict):
        raise StoreError(f"Reading {path}: a {type(table).__name__}; an object was expected.")
    return table
