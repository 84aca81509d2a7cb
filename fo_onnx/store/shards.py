"""A run folder as it is read: the rows of its shards one after another, and meta."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import StoreError, reading
from ..limits import check_regular
from ..rows import COLUMNS, Array, Columns
from . import files
from .file_rows import stamp
from .journal import Journal, Shard
from .parquet_file import ParquetRows
from .schema import SCHEMA_VERSION, Layout, check_against_rows, check_meta, minimal_meta

RUN, MANIFEST = files.MARKERS[:2]
ERRORS, INPUTS, DATA = "errors.jsonl", "inputs.digests", "data"
DIGEST_BYTES = 8
"""What the digest of a row's input takes in `INPUTS`."""
_KEPT_OPEN = 2
_MANIFEST_BYTES = 2**30


class ShardRows:
    """The rows of several Parquet files as one. At most two files are open at a time.

    Args:
        folder: The run folder.
        shards: Its finished shards in order.
        layout: Their columns.
    """

    resident = False

    def __init__(self, folder: Path, shards: Sequence[Shard], layout: Layout) -> None:
        self.where = str(folder)
        self._folder = folder / DATA
        self._shards = [s for s in shards if s.rows]
        self._starts = np.concatenate([[0], np.cumsum([s.rows for s in self._shards], dtype=np.int64)]).astype(np.int64)
        self._layout = layout
        self.length = int(self._starts[-1])
        self.classes, self.id_kind = layout.classes, layout.id_kind
        self.has_labels, self.has_logits = layout.labels, layout.logits
        self.step = max(1, min(16_384, 2**24 // layout.classes))
        self._open: dict[int, ParquetRows] = {}
        # A run that replaces this one makes other files of the same names.
        self._stamps = [stamp(self._folder / s.file) for s in self._shards]

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return self.__dict__ | {"_open": {}}

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Decodes what is asked for. Raises `StoreError` where a shard is damaged, gone or replaced."""
        with reading(self.where, StoreError):
            return self._read(start, stop, columns)

    def _read(self, start: int, stop: int, columns: Collection[str]) -> Columns:
        wanted = [c for c in self._layout.columns if c in columns]
        first = max(0, int(np.searchsorted(self._starts, start, side="right")) - 1)
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts: list[Columns] = []
        for i in range(first, last if stop > start else first):
            offset = int(self._starts[i])
            end = min(stop - offset, self._shards[i].rows)
            parts.append(self._shard(i).read(max(start - offset, 0), end, wanted))
        if len(parts) == 1:
            return parts[0]
        joined = {c: [cast(Array, getattr(p, c)) for p in parts] for c in wanted}
        return Columns(**{c: np.concatenate(p) if p else self._empty(c) for c, p in joined.items()})

    def _empty(self, column: str) -> Array:
        if column in ("probs", "logits"):
            return np.empty((0, self.classes), dtype=np.float32)
        return np.empty(0, dtype=object if column == "ids" and self.id_kind == "str" else np.int64)

    def _shard(self, i: int) -> ParquetRows:
        if i not in self._open:
            shard = self._shards[i]
            path = self._folder / shard.file
            rows = ParquetRows(path)
            if stamp(path) != self._stamps[i]:
                raise StoreError(
                    f"Reading {self.where}: {DATA}/{shard.file} was replaced since the folder was opened, by another run "
                    "perhaps. Load the folder again."
                )
            if rows.length != shard.rows or Layout.of(rows) != self._layout:
                raise StoreError(
                    f"Reading {rows.where}: {rows.length} rows with the columns {Layout.of(rows)}; the journal says "
                    f"{shard.rows} "
                    f"with {self._layout}. The file was replaced."
                )
            while len(self._open) >= _KEPT_OPEN:
                del self._open[next(iter(self._open))]
            self._open[i] = rows
        return self._open[i]


def read(folder: Path) -> tuple[ShardRows, dict[str, Any]]:
    """The rows and meta of a run folder; of an unfinished one its finished rows, with ``meta["complete"]`` false.

    Raises:
        StoreError: Where it is no run folder, a shard is gone or cut short, or the schema is newer.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        table = load_json(manifest)
        _check_schema(table, manifest)
        meta, shards, layout = (
            check_meta(table.get("meta"), str(manifest)),
            manifest_shards(table, manifest),
            manifest_layout(table, manifest),
        )
        remedy = "resume=True runs its rows again"
    else:
        run = read_run(folder)
        journal = Journal(folder)
        if journal.layout is None:
            raise StoreError(f"Reading {folder}: an unfinished run that has no rows yet; resume=True goes on with it.")
        shards, layout = journal.shards, layout_of(journal)
        own = run["settings"].get("meta") or {}
        meta = check_meta(minimal_meta(layout, None) | (own if isinstance(own, dict) else {}), str(folder / RUN))
        meta["rows"] = count_rows(shards)
        meta["complete"] = False
        remedy = "resume=True goes on from the rows before it"
    for shard in shards:
        problem = shard_problem(folder, shard, hashing=False)
        if problem:
            raise StoreError(f"Reading {folder}: {problem}; {remedy}.")
    with reading(folder, StoreError):
        rows = ShardRows(folder, shards, layout)
    check_against_rows(meta, rows)
    return rows, meta


def count_rows(shards: Sequence[Shard]) -> dict[str, int]:
    """Rows that were written, left out and written down, as meta has them."""
    return {
        "written": sum(s.rows for s in shards),
        "skipped": sum(s.bad_rows for s in shards if not s.recorded),
        "quarantined": sum(s.bad_rows for s in shards if s.recorded),
    }


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says. Raises `StoreError` where it is not there, damaged, or of a newer schema."""
    path = folder / RUN
    if not path.exists():
        raise StoreError(f"Reading {folder}: a folder without {RUN} and {MANIFEST}, so no run folder of fo-onnx.")
    table = load_json(path)
    _check_schema(table, path)
    if not isinstance(table.get("identity"), dict) or not isinstance(table.get("settings"), dict):
        raise StoreError(f"Reading {path}: identity and settings were expected; there are {', '.join(table)}.")
    return table


def _check_schema(table: dict[str, Any], path: Path) -> None:
    version = table.get("schema")
    if type(version) is not int or version < 1:
        raise StoreError(
            f"Reading {path}: its schema is {version!r}; a version number was expected. It is damaged, or not of fo-onnx."
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"Reading {path}: it has schema {version}, written by a newer fo-onnx "
            f"({table.get('fo_onnx', 'unknown')}); this one reads up to {SCHEMA_VERSION}. Upgrade with: pip install -U "
            "fo-onnx"
        )


def manifest_shards(table: dict[str, Any], path: Path) -> list[Shard]:
    """The shards that a manifest lists."""
    try:
        return [Shard(**entry) for entry in table["shards"]]
    except (KeyError, TypeError) as err:
        raise StoreError(f"Reading {path}: its list of shards is not as this version knows it ({err}).") from err


def manifest_layout(table: dict[str, Any], path: Path) -> Layout:
    """The columns that a manifest names."""
    return _layout(table.get("layout"), path)


def layout_of(journal: Journal) -> Layout:
    """The columns that a journal names."""
    return _layout(journal.layout, Path("the journal"))


def _layout(entry: Any, path: Path) -> Layout:
    try:
        layout = Layout(**entry)
        fits = (
            type(layout.classes) is int
            and 1 <= layout.classes < 2**31
            and layout.id_kind in ("int", "str")
            and type(layout.labels) is type(layout.logits) is bool
        )
    except TypeError:
        fits = False
    if not fits:
        raise StoreError(f"Reading {path}: its layout {entry!r} is not as this version knows it. It is damaged.")
    return layout


def shard_problem(folder: Path, shard: Shard, *, hashing: bool) -> str | None:
    """What is wrong with a shard's file, if anything; with `hashing` its digest is compared too."""
    path = folder / DATA / shard.file
    if path.is_symlink() or path.parent.is_symlink():
        return f"the shard {DATA}/{shard.file} is reached by a link, which is never followed"
    if not path.is_file():
        return f"the shard {DATA}/{shard.file} is not there"
    if (size := path.stat().st_size) != shard.bytes:
        return f"the shard {DATA}/{shard.file} has {size} bytes, {shard.bytes} were written"
    if hashing:
        with reading(path, StoreError), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            return (
                f"the sha256 of the shard {DATA}/{shard.file} does not match: its content changed after it was written"
            )
    return None


def beside_problem(folder: Path, shard: Shard, errors_start: int) -> str | None:
    """What is wrong with what a shard has beside its rows: lines of bad rows, digests of inputs."""
    pieces = [(ERRORS, errors_start, shard.errors_bytes, shard.errors_crc32)]
    if shard.inputs_crc32 is not None:
        start, stop = DIGEST_BYTES * shard.start, DIGEST_BYTES * shard.stop
        pieces.append((INPUTS, start, stop - start, shard.inputs_crc32))
    for name, start, size, crc32 in pieces:
        if size and zlib.crc32(read_piece(folder / name, start, size) or b"") != crc32:
            return f"{name} changed where it speaks of positions {shard.start} to {shard.stop - 1}"
    return None


def read_piece(path: Path, start: int, size: int) -> bytes | None:
    """`size` bytes of a file from `start` on; ``None`` where they are not there, or behind a link."""
    try:
        if path.is_symlink():
            return None
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
    except OSError:
        return None
    return data if len(data) == size else None


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `StoreError`."""
    check_regular(path, StoreError)
    with reading(path, StoreError):
        if path.stat().st_size > _MANIFEST_BYTES:
            raise StoreError(
                f"Reading {path}: {path.stat().st_size} bytes are no record of a run. The file is damaged."
            )
        table = json.loads(path.read_bytes())
    if not isinstance(table, dict):
        raise StoreError(f"Reading {path}: a {type(table).__name__}; an object was expected.")
    return table
