"""Rows out into a run folder: shards that are finished one by one, and a file or a manifest at the end.

The order of every step is such that a kill at any moment loses only what the open shard held: temporary file, fsync,
rename, fsync of the folder, errors, journal line, fsync.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import StoreError
from ..metrics import MetricsAccumulator
from ..protocols import BadRow
from ..rows import Array, Columns, chunks
from . import files
from .checks import DOING, SeenIds, checked
from .digest import RowDigest, sealed
from .journal import Shard, shard_file
from .parquet_file import ParquetOutput, group_rows
from .schema import SCHEMA_VERSION, Layout, complete_meta
from .shards import DATA, ShardRows, count_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .run_folder import RunFolder

BAD_ROW = "bad row"


class RunSink:
    """A `Sink` that keeps rows in a run folder; made by `RunFolder.sink`.

    The newest append is kept aside until the next one comes: where the run ends early it may be cut short, so that
    `abort` writes it into a shard of its own, which a resumed run drops and runs again.

    Attributes:
        written: Rows so far, those of a resumed run included.
        bad_rows: Rows so far that came to nothing.
        metrics: Metrics of the rows that were written; whole after `commit`.
    """

    def __init__(
        self, folder: RunFolder, layout: Layout, *, record_errors: bool, inputs: InputDigests | None = None
    ) -> None:
        self._inputs = inputs
        self._folder, self._layout, self._record_errors = folder, layout, record_errors
        self._journal = folder.journal
        self.written = sum(s.rows for s in self._journal.shards)
        self.bad_rows = sum(s.bad_rows for s in self._journal.shards)
        self.metrics = MetricsAccumulator(layout.classes)
        self._digest = RowDigest(layout)
        self._position = folder.position
        self._pending: Columns | None = None
        self._pending_bad: tuple[BadRow, ...] = ()
        self._open: _OpenShard | None = None
        # True while the state changes: an interrupt then leaves it undefined, and only finished shards are kept.
        self._busy = False
        self._ended = False
        self._seen = SeenIds(self._ids_so_far)
        for part in chunks(self._rows()):
            self._account_for(part)
        self._seen.restore()

    @property
    def position(self) -> int:
        """Rows of the source that were taken, the newest append included."""
        return (
            self._position
            + len(self._pending_bad)
            + (0 if self._pending is None else len(cast(Array, self._pending.ids)))
        )

    def append(self, ids: Array, probs: Any, labels: Any, logits: Any, bad: Sequence[BadRow] = ()) -> None:
        """Takes the next rows; copies them.

        Raises:
            StoreError: As `fo_onnx.protocols.Sink` says; nothing was taken.
            StoreWriteError: The disk refused; call `abort`.
        """
        if self._ended or self._busy:
            raise StoreError(
                f"{DOING}: the run in {self._folder.path} {'was ended already' if self._ended else 'has failed'}."
            )
        columns = checked(self._layout, ids, probs, labels, logits)
        taken = cast(Array, columns.ids)
        if bad:
            self._check_bad(bad, len(taken))
        self._seen.take(taken)
        self._busy = True
        self._take_pending()
        self._pending = Columns(**{c: np.array(getattr(columns, c)) for c in self._layout.columns})
        self._pending_bad = tuple(bad)
        self.written += len(taken)
        self.bad_rows += len(bad)
        self._busy = False

    def finish_shard(self) -> None:
        """Puts everything taken so far into finished shards."""
        self._busy = True
        self._take_pending()
        self._end_shard()
        self._busy = False

    def commit(self, meta: dict[str, Any], *, counts: dict[str, Any] | None = None) -> None:
        """Ends the run: the target is whole, with the metrics in its meta, and the run folder beside it is gone.

        Args:
            meta: The run's. Where it has ``rows``, they must be the counts of this sink.
            counts: What stands as ``rows`` in a copy of a result, whose own run had others.

        Raises:
            StoreError: Where the counts do not add up, or meta says others.
            StoreWriteError: The disk refused; call `abort`. All rows are kept.
        """
        if self._ended:
            raise StoreError(f"Ending the run in {self._folder.path}: it was ended already.")
        self.finish_shard()
        rows = self._rows()
        self._check_counts(meta, rows)
        own = {"rows": counts or count_rows(self._journal.shards)}
        whole = complete_meta({**own, **meta, "metrics": self.metrics.result()}, rows)
        whole.pop("complete", None)
        whole = sealed(whole, self._digest.result(), str(self._folder.target))
        self._folder.finish(rows, whole, self._layout)
        self._ended = True

    def abort(self, error: BaseException) -> Path | None:
        """Ends the run early and frees the folder.

        Whatever goes wrong here is added to `error` as a note, so that it does not hide why the run ended.

        Returns:
            The folder with the finished rows; ``None`` where there are none, and then no folder is left.
        """
        if self._ended:
            return None
        self._ended = True
        try:
            if not self._busy:
                self._busy = True
                self._end_shard()
                if self._pending is not None:
                    self._take_pending(end=False)
                    self._end_shard(last_batch=True)
        except StoreError as err:
            error.add_note(f"While the finished rows were kept: {err}")
        finally:
            self.discard()
        self.written = sum(s.rows for s in self._journal.shards)
        self.bad_rows = sum(s.bad_rows for s in self._journal.shards)
        path = self._folder.path
        if self._journal.position == 0:
            try:
                self._folder.remove()
            except StoreError as err:
                error.add_note(f"While an empty run folder was removed: {err}")
            return None
        self._folder.close()
        return path

    def discard(self) -> None:
        """Gives up the open shard, without a trace on the disk."""
        if self._open is not None:
            self._open.discard()
            self._open = None

    def _take_pending(self, *, end: bool = True) -> None:
        if self._pending is None:
            return
        if self._open is None:
            self._open = _OpenShard(self._folder, self._layout, self._position, self._account_for)
        shard = self._open
        shard.output.add(self._pending)
        shard.rows += len(cast(Array, self._pending.ids))
        shard.bad.extend(self._pending_bad)
        self._position = shard.stop
        self._pending, self._pending_bad = None, ()
        if end and shard.is_full():
            self._end_shard()

    def _end_shard(self, *, last_batch: bool = False) -> None:
        if self._open is None:
            return
        entry = self._open.finish(last_batch)
        bad = self._open.bad
        self._open = None
        if self._record_errors and bad:
            size_bytes, crc32 = self._folder.add_errors(bad)
            entry = replace(entry, recorded=True, errors_bytes=size_bytes, errors_crc32=crc32)
        if self._inputs is not None:
            entry = replace(entry, inputs_crc32=self._folder.add_inputs(self._inputs.take(entry.start, entry.stop)))
        self._journal.append_shard(entry)

    def _account_for(self, part: Columns) -> None:
        """Takes rows that are in their shard into the metrics and the digest of the whole."""
        self.metrics.update(cast(Array, part.probs), part.labels)
        self._digest.update(part)

    def _rows(self) -> ShardRows:
        return ShardRows(self._folder.path, self._journal.shards, self._layout)

    def _ids_so_far(self) -> Iterator[Array]:
        # Ids of the open shard can only be read once it is a file.
        self._busy = True
        self._end_shard()
        self._busy = False
        for part in chunks(self._rows(), ("ids",)):
            yield cast(Array, part.ids)
        if self._pending is not None:
            yield cast(Array, self._pending.ids)

    def _check_bad(self, bad: Sequence[BadRow], good: int) -> None:
        start, stop = self.position, self.position + good + len(bad)
        odd = [b.position for b in bad if not start <= b.position < stop]
        if odd:
            raise StoreError(f"{DOING}: bad rows at positions {odd} in an append of positions {start} to {stop - 1}.")

    def _check_counts(self, meta: dict[str, Any], rows: ShardRows) -> None:
        where = f"Ending the run in {self._folder.path}"
        if not (
            rows.length == self.written == self.metrics.rows and self.written + self.bad_rows == self._journal.position
        ):
            raise StoreError(
                f"{where}: {self.written} rows and {self.bad_rows} bad ones were taken, {rows.length} rows are in "
                "shards, and "
                f"they reach position {self._journal.position}. Rows are missing or doubled."
            )
        counts = meta.get("rows")
        if counts is not None:
            said = (counts.get("written"), (counts.get("skipped") or 0) + (counts.get("quarantined") or 0))
            if said != (self.written, self.bad_rows):
                raise StoreError(
                    f"{where}: meta speaks of {said[0]} rows and {said[1]} bad ones, {self.written} and "
                    f"{self.bad_rows} were taken."
                )


class InputDigests:
    """Digests of the inputs of rows on their way through a run, from whoever reads them to the shard that holds them."""

    def __init__(self) -> None:
        self._parts: dict[int, NDArray[np.uint64]] = {}
        self._lock = threading.Lock()

    def put(self, start: int, digests: NDArray[np.uint64]) -> None:
        """Takes the digests of the rows from position `start` on; 0 stands for one that could not be read."""
        with self._lock:
            self._parts[start] = digests

    def take(self, start: int, stop: int) -> NDArray[np.uint64]:
        """Gives the digests of positions `start` to ``stop − 1``, and forgets those before `stop`."""
        digests = np.zeros(stop - start, dtype=np.uint64)
        with self._lock:
            for begin, part in list(self._parts.items()):
                end = begin + len(part)
                first, last = max(begin, start), min(end, stop)
                if first < last:
                    digests[first - start : last - start] = part[first - begin : last - begin]
                if end <= stop:
                    del self._parts[begin]
        return digests


class _OpenShard:
    """The shard that is being written."""

    def __init__(self, folder: RunFolder, layout: Layout, start: int, on_group: Callable[[Columns], None]) -> None:
        self._folder = folder
        self._row_bytes = 4 * layout.classes * (2 if layout.logits else 1)
        self._opened_s = time.monotonic()
        self.start, self.rows = start, 0
        self.bad: list[BadRow] = []
        self.path = folder.path / DATA / shard_file(start)
        temporary = folder.path / (self.path.name + files.TEMPORARY)
        self.file = files.OutputFile(self.path, "writing rows", temporary=temporary, hashing=True, replaces=_is_file)
        meta = {"schema": SCHEMA_VERSION, "data": layout.as_dict(), "part": {"start": start}}
        size = group_rows(layout.classes, min(folder.group_rows, max(1, folder.shard_bytes // self._row_bytes)))
        try:
            self.output = ParquetOutput(self.file, layout, meta, rows_per_group=size, on_group=on_group)
        except BaseException:
            self.file.discard()
            raise

    @property
    def stop(self) -> int:
        """Position after the last row that it accounts for."""
        return self.start + self.rows + len(self.bad)

    def is_full(self) -> bool:
        """Whether it is large or old enough."""
        size_bytes, age_s = self.rows * self._row_bytes, time.monotonic() - self._opened_s
        return size_bytes >= self._folder.shard_bytes or age_s >= self._folder.shard_seconds

    def finish(self, last_batch: bool) -> Shard:
        """Puts it on the disk under its name; the entry for the journal."""
        try:
            self.output.close()
            self.file.finish()
        except BaseException:
            self.discard()
            raise
        return Shard(
            file=self.path.name,
            start=self.start,
            stop=self.stop,
            rows=self.rows,
            bad_rows=len(self.bad),
            bytes=self.file.size_bytes,
            sha256=self.file.sha256,
            last_batch=last_batch,
        )

    def discard(self) -> None:
        """Removes it."""
        self.output.discard()
        self.file.discard()


def error_lines(bad: Sequence[BadRow]) -> bytes:
    """Bad rows as lines of JSON: position, id, reason, and what the line is."""
    table = ({"fo_onnx": BAD_ROW, "position": b.position, "id": b.id, "reason": b.reason} for b in bad)
    return b"".join(json.dumps(line).encode() + b"\n" for line in table)


def is_list_of_bad_rows(path: Path) -> bool:
    """Whether a file was written by `error_lines`, all of it."""
    try:
        with path.open("rb") as file:
            lines = [json.loads(line) for line in file]
    except (OSError, ValueError, RecursionError):
        return False
    return bool(lines) and all(isinstance(line, dict) and line.get("fo_onnx") == BAD_ROW for line in lines)


def _is_file(path: Path) -> bool:
    """What stands under the name of the open shard is what a kill left of it: the journal does not name it yet."""
    return True
