"""The journal of a run folder: one line per finished shard, each with its checksum, only ever appended to.

A line is ``{"crc32":"<8 hex digits>","entry":{…}}``; the CRC-32 is that of the entry's own bytes. A kill while a line
is written leaves a last line that is not whole: it counts as not written. A broken line before others is damage.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import StoreError
from . import files

NAME = "journal.jsonl"
_LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","entry":(\{.*\})\}')


@dataclass(frozen=True)
class Shard:
    """A finished part of a run.

    Attributes:
        file: Name of the file in ``data/``.
        start: Position in the source of the first row that it accounts for.
        stop: Position after the last.
        rows: Rows in the file.
        bad_rows: Rows that came to nothing.
        bytes: Size of the file.
        sha256: Digest of the file.
        last_batch: Whether it holds the last batch before an early end, which may be cut short and is run again.
    """

    file: str
    start: int
    stop: int
    rows: int
    bad_rows: int
    bytes: int
    sha256: str
    last_batch: bool = False


class Journal:
    """The journal of one folder, as a list of entries and a file that keeps up with it.

    Args:
        folder: The run folder.

    Raises:
        StoreError: For a broken line that is not the last, and for shards that do not follow one another.

    Attributes:
        shards: The finished shards in order.
        switched_at: Position from which on the native runner ran, or ``None``.
        switch_reason: Why.
        layout: The columns of the run and whether bad rows are recorded, once they are known.
        torn: Whether the last line was not whole.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._folder = folder
        self.shards: list[Shard] = []
        self.switched_at: int | None = None
        self.switch_reason: str | None = None
        self.layout: dict[str, Any] | None = None
        self.torn = False
        self._size = 0
        self._lines: list[tuple[dict[str, Any], bytes]] = []
        data = self._path.read_bytes() if self._path.exists() else b""
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], start=1):
            entry = _parse(line)
            if entry is None:
                if number == len(lines) - 1 and lines[-1] == b"":
                    self.torn = True
                    return
                raise StoreError(
                    f"Reading {self._path}: line {number} of {len(lines) - 1} is broken, and lines after it are not: "
                    "the journal "
                    "was damaged after it was written. overwrite=True begins the run anew."
                )
            self._take(entry, line + b"\n")
        self.torn = lines[-1] != b""

    @property
    def position(self) -> int:
        """Rows of the source that are accounted for."""
        return self.shards[-1].stop if self.shards else 0

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line and waits until it is on the disk. Raises `StoreWriteError`; then nothing was added."""
        line = _line(entry)
        files.write_at(self._path, self._size, line, "writing the journal", self._folder)
        self._take(entry, line)

    def append_shard(self, shard: Shard) -> None:
        """Adds a finished shard, whose file is on the disk under its name."""
        self.append({"kind": "shard", **shard.__dict__})

    def drop_last_shard(self) -> None:
        """Takes the last shard out, by writing the journal anew in one step."""
        shards = [i for i, (entry, _) in enumerate(self._lines) if entry["kind"] == "shard"]
        kept = [line for i, (_, line) in enumerate(self._lines) if i != shards[-1]]
        files.write_bytes(
            self._path, b"".join(kept), "writing the journal", temporary=self._folder / (NAME + files.TEMPORARY)
        )
        self.shards.pop()
        del self._lines[shards[-1]]
        self._size = sum(map(len, kept))

    def mend(self) -> None:
        """Cuts off a last line that is not whole."""
        if self.torn:
            files.write_at(self._path, self._size, b"", "mending the journal", self._folder)
            self.torn = False

    def _take(self, entry: dict[str, Any], line: bytes) -> None:
        try:
            kind = entry["kind"]
            if kind == "shard":
                shard = Shard(**{k: v for k, v in entry.items() if k != "kind"})
                if shard.start != self.position or shard.stop != shard.start + shard.rows + shard.bad_rows:
                    raise StoreError(
                        f"Reading {self._path}: a shard of positions {shard.start} to {shard.stop} with {shard.rows} "
                        "rows and "
                        f"{shard.bad_rows} bad ones follows position {self.position}. The journal is damaged."
                    )
                self.shards.append(shard)
            elif kind == "switch":
                self.switched_at, self.switch_reason = int(entry["position"]), str(entry["reason"])
            elif kind == "layout":
                self.layout = entry["layout"]
            else:
                raise StoreError(
                    f"Reading {self._path}: an entry of kind {kind!r}, which this version does not know. Upgrade "
                    "fo-onnx."
                )
        except (KeyError, TypeError) as err:
            raise StoreError(
                f"Reading {self._path}: the entry {entry!r} is not as this version knows it ({err})."
            ) from err
        self._lines.append((entry, line))
        self._size += len(line)


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=True).encode()
    return b'{"crc32":"%08x","entry":%s}\n' % (zlib.crc32(text), text)


def _parse(line: bytes) -> dict[str, Any] | None:
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    entry = json.loads(match[2])
    return entry if isinstance(entry, dict) else None
