"""The journal of a run folder: one line per finished shard, each with its checksum, only ever appended to.

A line is ``{"crc32":"<8 hex digits>","entry":{…}}``; the CRC-32 is that of the entry's own bytes. A kill while a line
is written leaves a last line that is cut short: it counts as not written. A broken line before others is damage, and ends
the journal.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import StoreError, first_line, reading
from ...guards.limits import check_regular
from .. import files

NAME = "journal.jsonl"
_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","entry":(\{.*\})\}')
_SHARD_FILE = re.compile(r"part-\d{12,19}\.parquet")


def name_shard_file(start: int) -> str:
    """Return the name of the file of the shard whose first row is at position `start` of the source."""
    return f"part-{start:012d}.parquet"


@dataclass(frozen=True)
class Shard:
    """A finished part of a run.

    Attributes:
        file: Name of the file in ``data/``.
        start: Position in the source of the first row that it accounts for.
        stop: Position after the last.
        rows: Rows in the file.
        bad_rows: Rows that could not be read or run.
        bytes: Size of the file.
        sha256: Digest of the file.
        last_batch: Whether it holds the last batch before an early end, which may be cut short and is run again.
        recorded: Whether its bad rows are in ``errors.jsonl``.
        errors_bytes: Size of their lines there, which follow those of the shards before.
        errors_crc32: CRC-32 of these lines.
        inputs_crc32: CRC-32 of the digests of its rows' inputs in ``inputs.digests``; ``None`` if none are recorded.
    """

    file: str
    start: int
    stop: int
    rows: int
    bad_rows: int
    bytes: int
    sha256: str
    last_batch: bool = False
    recorded: bool = False
    errors_bytes: int = 0
    errors_crc32: int = 0
    inputs_crc32: int | None = None

    def __post_init__(self) -> None:
        counts = (self.start, self.stop, self.rows, self.bad_rows, self.bytes, self.errors_bytes)
        if not all(type(n) is int and 0 <= n < 2**63 for n in counts):
            raise TypeError("its numbers are no counts")
        if self.stop != self.start + self.rows + self.bad_rows:
            raise ValueError(f"{self.rows} rows and {self.bad_rows} bad ones at positions {self.start} to {self.stop}")
        if not isinstance(self.file, str) or not _SHARD_FILE.fullmatch(self.file):
            raise TypeError(f"{self.file!r} is no name of a shard")
        if not isinstance(self.sha256, str) or type(self.last_batch) is not bool or type(self.recorded) is not bool:
            raise TypeError("its fields have other types")


class Journal:
    """The journal of one folder: what its lines say, and a file that keeps up with it.

    Raises:
        StoreError: A newer version wrote it. Its lines must not be left out: what they speak of would be removed.

    Attributes:
        folder: The run folder.
        shards: The finished shards in order.
        switched_at: First position that the native runner ran, or ``None``.
        switch_reason: Why.
        difference: How the exported model was found to differ from the original, which ended the run; or ``None``.
        on_error: The option `on_error`, as pairs of the first position that it holds for and its value.
        layout: The columns of the run, once they are known.
        damage: Why lines are left out, if they are: a broken one before others, or shards that do not follow one another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / NAME
        self._read(None)

    def _read(self, size: int | None) -> None:
        """Apply the lines in the first `size` bytes of the file, or in all of it."""
        self.shards: list[Shard] = []
        self.switched_at: int | None = None
        self.switch_reason: str | None = None
        self.difference: str | None = None
        self.on_error: list[tuple[int, str]] = []
        self.layout: dict[str, Any] | None = None
        self.damage: StoreError | None = None
        # The size of the lines that count, and before the line of each shard.
        self._size = 0
        self._shard_offsets: list[int] = []
        # Every whole line ends in a newline, so that what follows the last one is a line that was cut short.
        *lines, rest = _read_bytes(self._path)[:size].split(b"\n")
        for number, line in enumerate(lines, start=1):
            entry, problem = (
                _decode_line(line),
                "is broken, and lines after it are not: it was damaged after it was written",
            )
            # The last line may be what a kill left of it.
            if entry is None and number == len(lines) and not rest:
                return
            try:
                if entry is not None:
                    self._apply(entry, len(line) + 1)
                    continue
            except StoreError:
                raise
            except (KeyError, TypeError, ValueError, OverflowError) as err:
                problem = f"is not as this version knows it ({first_line(err)})"
            self.damage = StoreError(
                f"Reading {self._path}: line {number} of {len(lines)} {problem}. resume=True continues from the rows before it."
            )
            return

    @property
    def position(self) -> int:
        """Return the number of rows of the source that are accounted for."""
        return self.shards[-1].stop if self.shards else 0

    @property
    def errors_bytes(self) -> int:
        """Return the size of the lines of all shards in ``errors.jsonl``."""
        return sum(s.errors_bytes for s in self.shards)

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk. Raises `StoreWriteError`; then nothing was added."""
        line = _encode_line(entry)
        files.write_at(self._path, self._size, line, "writing the journal")
        self._apply(entry, len(line))

    def drop_shards(self, first: int) -> None:
        """Leave out the shards from number `first` on, and all lines after them; `cut` puts that on the disk."""
        if first < len(self.shards):
            self._read(self._shard_offsets[first])

    def cut(self) -> None:
        """Cut off the lines that do not count."""
        files.write_at(self._path, self._size, b"", "writing the journal")

    def _apply(self, entry: dict[str, Any], size: int) -> None:
        # Lines carry a checksum, so that an entry that does not fit is of another version, or was edited.
        kind = entry["kind"]
        if kind == "shard":
            shard = Shard(**{k: v for k, v in entry.items() if k != "kind"})
            if shard.start != self.position:
                raise ValueError(f"a shard of positions {shard.start} to {shard.stop} follows position {self.position}")
            self.shards.append(shard)
            self._shard_offsets.append(self._size)
        elif kind == "switch":
            self.switched_at, self.switch_reason = int(entry["position"]), str(entry["reason"])
        elif kind == "difference":
            self.difference = str(entry["reason"])
        elif kind == "on_error":
            self.on_error.append((int(entry["position"]), str(entry["on_error"])))
        elif kind == "layout":
            self.layout = dict(entry["layout"])
        else:
            raise StoreError(
                f"Reading {self._path}: an entry of kind {kind!r}, which a newer fo-onnx wrote. Upgrade with: "
                "pip install -U fo-onnx"
            )
        self._size += size


def list_shard_files(folder: Path) -> set[str]:
    """Return the names in ``data/`` that the journal of a folder accounts for, whatever else is damaged in it.

    These are the shards that it names, and the one that is begun where each of them ends.
    """
    names, stops = set(), {0}
    for line in _read_bytes(folder / NAME).split(b"\n"):
        entry = _decode_line(line) or {}
        if entry.get("kind") == "shard" and type(stop := entry.get("stop")) is int and 0 <= stop < 2**63:
            stops.add(stop)
            if isinstance(file := entry.get("file"), str) and _SHARD_FILE.fullmatch(file):
                names.add(file)
    return names | {name_shard_file(stop) for stop in stops}


def _read_bytes(path: Path) -> bytes:
    with reading(path, StoreError):
        check_regular(path, StoreError)
        return path.read_bytes() if path.exists() else b""


def _encode_line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=True).encode()
    return b'{"crc32":"%08x","entry":%s}\n' % (zlib.crc32(text), text)


def _decode_line(line: bytes) -> dict[str, Any] | None:
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    try:
        entry = json.loads(match[2])
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
