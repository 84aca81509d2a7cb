"""A run folder as it is read: the rows of its shards one after another, and meta."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import StoreError
from ..rows import COLUMNS, Array, Columns
from .journal import Journal, Shard
from .parquet_file import ParquetRows
from .schema import SCHEMA_VERSION, Layout, check_against_rows, check_meta, minimal_meta

RUN, MANIFEST, ERRORS, DATA, LOCK = "run.json", "manifest.json", "errors.jsonl", "data", ".lock"
_KEPT_OPEN = 2


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

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return self.__dict__ | {"_open": {}}

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Decodes what is asked for. Raises `StoreError` where a shard is damaged or gone."""
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
            rows = ParquetRows(self._folder / shard.file)
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
        meta, shards, layout = (
            check_meta(table.get("meta"), str(manifest)),
            manifest_shards(table, manifest),
            manifest_layout(table, manifest),
        )
    else:
        run = read_run(folder)
        journal = Journal(folder)
        if journal.layout is None:
            raise StoreError(f"Reading {folder}: an unfinished run that has no rows yet; resume=True goes on with it.")
        shards, layout = journal.shards, layout_of(journal)
        meta = minimal_meta(layout, None) | (run["settings"].get("meta") or {})
        bad = "quarantined" if journal.layout.get("record_errors") else "skipped"
        meta["rows"] = {"written": sum(s.rows for s in shards), "skipped": 0, "quarantined": 0}
        meta["rows"][bad] = sum(s.bad_rows for s in shards)
        meta["complete"] = False
    for shard in shards:
        problem = shard_problem(folder, shard, hashing=False)
        if problem:
            raise StoreError(f"Reading {folder}: {problem}. Rows of it are lost; run it again with overwrite=True.")
    rows = ShardRows(folder, shards, layout)
    check_against_rows(meta, rows)
    return rows, meta


def is_run_folder(folder: Path) -> bool:
    """Whether it is one, finished or not."""
    return (folder / RUN).exists() or (folder / MANIFEST).exists()


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says. Raises `StoreError` where it is not there, damaged, or of a newer schema."""
    path = folder / RUN
    if not path.exists():
        raise StoreError(f"Reading {folder}: a folder without {RUN} and {MANIFEST}, so no run folder of fo-onnx.")
    table = load_json(path)
    version = table.get("schema")
    if (
        not isinstance(version, int)
        or not isinstance(table.get("identity"), dict)
        or not isinstance(table.get("settings"), dict)
    ):
        raise StoreError(f"Reading {path}: schema, identity and settings were expected; found {', '.join(table)}.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"Reading {path}: it has schema {version}, written by a newer fo-onnx "
            f"({table.get('fo_onnx', 'unknown')}); this one "
            f"reads up to {SCHEMA_VERSION}. Upgrade with: pip install -U fo-onnx"
        )
    return table


def manifest_shards(table: dict[str, Any], path: Path) -> list[Shard]:
    """The shards that a manifest lists."""
    try:
        return [Shard(**entry) for entry in table["shards"]]
    except (KeyError, TypeError) as err:
        raise StoreError(f"Reading {path}: its list of shards is not as this version knows it ({err}).") from err


def manifest_layout(table: dict[str, Any], path: Path) -> Layout:
    """The columns that a manifest names."""
    try:
        return Layout(**table["layout"])
    except (KeyError, TypeError) as err:
        raise StoreError(f"Reading {path}: its layout is not as this version knows it ({err}).") from err


def layout_of(journal: Journal) -> Layout:
    """The columns that a journal names."""
    entry = dict(journal.layout or {})
    entry.pop("record_errors", None)
    try:
        return Layout(**entry)
    except TypeError as err:
        raise StoreError(f"Reading a journal: its layout {entry!r} is not as this version knows it ({err}).") from err


def shard_problem(folder: Path, shard: Shard, *, hashing: bool) -> str | None:
    """What is wrong with a shard's file, if anything; with `hashing` its digest is compared too."""
    path = folder / DATA / shard.file
    if Path(shard.file).name != shard.file:
        return f"the shard {shard.file!r} lies outside of {DATA}/"
    if not path.exists():
        return f"the shard {DATA}/{shard.file} is not there"
    if (size := path.stat().st_size) != shard.bytes:
        return f"the shard {DATA}/{shard.file} has {size} bytes, {shard.bytes} were written"
    if hashing:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != shard.sha256:
            return (
                f"the sha256 of the shard {DATA}/{shard.file} does not match: its content changed after it was written"
            )
    return None


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `StoreError`."""
    try:
        table = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise StoreError(f"Reading {path}: no valid JSON ({err}). The file is damaged.") from err
    if not isinstance(table, dict):
        raise StoreError(f"Reading {path}: a {type(table).__name__}; an object was expected.")
    return table
