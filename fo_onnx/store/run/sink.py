"""Rows out into a run folder: shards that are finished one by one, and a file or a manifest at the end.

The order of every step is such that a kill at any moment loses only the rows of the open shard: temporary file, fsync,
rename, fsync of the folder, bad rows, journal line, fsync.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...contracts.batch import BadRow
from ...distributions.columns import Array, CheckedRows, Columns, Layout, read_chunks
from ...distributions.metrics import MetricsAccumulator
from ...errors import StoreError
from .. import files
from ..digest import RowDigest
from ..row_checks import DOING, SeenIds, check_append
from ..schema import complete_meta
from .journal import Journal
from .shard_reader import DIGEST_BYTES, ERRORS, INPUTS, ShardRows, count_rows
from .shard_writer import InputDigests, ShardLimits, ShardWriter, encode_bad_rows


class RunSink:
    """A `Sink` that keeps rows in a run folder; made by `RunFolder.sink`.

    The newest append waits until the next one comes: if the run ends early it may be cut short, so that `abort` writes it
    into a shard of its own, which a resumed run drops and runs again.

    Args:
        journal: The journal of the folder.
        layout: The columns.
        limits: When a shard ends.
        record_errors: Whether bad rows are written down.
        inputs: Where digests of the rows' inputs come from, if they are recorded.
        publish: Turns the finished shards into the target; takes all rows, their meta and the digest of the rows.
        release: Frees the folder; takes whether its rows are wanted, without which it is removed.

    Attributes:
        written: Rows so far, those of a resumed run included.
        bad_rows: Bad rows so far.
        metrics: Metrics of the rows that were written; of all of them after `commit`.
    """

    def __init__(
        self,
        journal: Journal,
        layout: Layout,
        limits: ShardLimits,
        *,
        record_errors: bool,
        inputs: InputDigests | None,
        publish: Callable[[ShardRows, dict[str, Any], str], None],
        release: Callable[[bool], None],
    ) -> None:
        self._journal, self._layout, self._limits = journal, layout, limits
        self._record_errors, self._inputs = record_errors, inputs
        self._publish, self._release = publish, release
        self.metrics = MetricsAccumulator(layout.classes)
        self._digest = RowDigest(layout)
        self._count_rows()
        self._waiting: tuple[Columns, tuple[BadRow, ...]] | None = None
        self._shard: ShardWriter | None = None
        # True while the state changes: an interrupt then leaves it undefined, and only finished shards are kept.
        self._busy = False
        self._ended = False
        # Metrics, digest and ids of a run that is resumed begin with those of its finished rows.
        for part in read_chunks(CheckedRows(self._rows())):
            self._account_for(part)
        self._seen = SeenIds(self._read_ids)

    def append(self, ids: Array, probs: Any, labels: Any, logits: Any, bad: Sequence[BadRow] = ()) -> None:
        """Take the next rows, and copy them.

        Raises:
            StoreError: As `fo_onnx.contracts.Sink` says; nothing was taken.
            StoreWriteError: The disk refused; call `abort`.
        """
        if self._ended or self._busy:
            raise StoreError(
                f"{DOING}: the run in {self._journal.folder} {'was ended already' if self._ended else 'has failed'}."
            )
        columns = check_append(self._layout, ids, probs, labels, logits)
        new_ids = cast(Array, columns.ids)
        start = self.written + self.bad_rows
        stop = start + len(new_ids) + len(bad)
        if odd := [b.position for b in bad if not start <= b.position < stop]:
            raise StoreError(f"{DOING}: bad rows at positions {odd} in an append of positions {start} to {stop - 1}.")
        self._seen.take(new_ids)
        # Everything fits: from here on only the disk can refuse.
        self._busy = True
        self._write_waiting()
        self._waiting = Columns(**{c: np.array(getattr(columns, c)) for c in self._layout.columns}), tuple(bad)
        self.written += len(new_ids)
        self.bad_rows += len(bad)
        self._busy = False

    def finish_shard(self) -> None:
        """Put everything taken so far into finished shards."""
        self._busy = True
        self._write_waiting()
        self._end_shard()
        self._busy = False

    def commit(self, meta: dict[str, Any], *, counts: dict[str, Any] | None = None) -> None:
        """End the run: the target is whole, with the metrics in its meta, and the run folder next to it is gone.

        Args:
            meta: The run's. If it has ``rows``, they must be the counts of this sink.
            counts: What stands as ``rows`` in a copy of a result, whose own run had others.

        Raises:
            StoreError: The counts do not add up, or meta says others.
            StoreWriteError: The disk refused; call `abort`. All rows are kept.
        """
        if self._ended:
            raise StoreError(f"Ending the run in {self._journal.folder}: it was ended already.")
        self.finish_shard()
        rows = self._rows()
        self._check_counts(meta, rows)
        own = {"rows": counts or count_rows(self._journal.shards)}
        record = complete_meta({**own, **meta, "metrics": self.metrics.result()}, rows)
        record.pop("complete", None)
        self._publish(rows, record, self._digest.result())
        self._ended = True

    def abort(self, error: BaseException) -> Path | None:
        """End the run early and free the folder.

        Whatever goes wrong here is added to `error` as a note, so that it does not hide why the run ended.

        Returns:
            The folder with the finished rows; ``None`` if there are none, and then no folder is left.
        """
        if self._ended:
            return None
        self._ended = True
        # The open shard is finished without the newest append, which gets a shard of its own.
        try:
            if not self._busy:
                self._busy = True
                self._end_shard()
                if self._waiting is not None:
                    self._write_waiting(may_end_shard=False)
                    self._end_shard(last_batch=True)
        except StoreError as err:
            error.add_note(f"While the finished rows were kept: {err}")
        finally:
            self.discard()
        self._count_rows()
        has_rows = self._journal.position > 0
        try:
            self._release(has_rows)
        except StoreError as err:
            error.add_note(f"While an empty run folder was removed: {err}")
        return self._journal.folder if has_rows else None

    def discard(self) -> None:
        """Give up the open shard, without a trace on the disk."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None

    def _write_waiting(self, *, may_end_shard: bool = True) -> None:
        if self._waiting is None:
            return
        if self._shard is None:
            self._shard = ShardWriter(
                self._journal.folder, self._layout, self._journal.position, self._limits, self._account_for
            )
        self._shard.add(*self._waiting)
        self._waiting = None
        if may_end_shard and self._shard.is_full():
            self._end_shard()

    def _end_shard(self, *, last_batch: bool = False) -> None:
        if self._shard is None:
            return
        entry, bad = self._shard.finish(last_batch), self._shard.bad
        self._shard = None
        # What belongs to the shard is on the disk before its journal line.
        folder = self._journal.folder
        if self._record_errors and bad:
            lines = encode_bad_rows(bad)
            files.write_at(folder / ERRORS, self._journal.errors_bytes, lines, "writing down bad rows")
            entry = replace(entry, recorded=True, errors_bytes=len(lines), errors_crc32=zlib.crc32(lines))
        if self._inputs is not None:
            digests = self._inputs.take(entry.start, entry.stop).astype("<u8").tobytes()
            files.write_at(folder / INPUTS, DIGEST_BYTES * entry.start, digests, "writing down digests of inputs")
            entry = replace(entry, inputs_crc32=zlib.crc32(digests))
        self._journal.append({"kind": "shard", **entry.__dict__})

    def _account_for(self, part: Columns) -> None:
        """Take rows that are in their shard into the metrics and the digest of the whole."""
        self.metrics.update(cast(Array, part.probs), part.labels)
        self._digest.update(part)

    def _rows(self) -> ShardRows:
        return ShardRows(self._journal.folder, self._journal.shards, self._layout)

    def _count_rows(self) -> None:
        self.written = sum(s.rows for s in self._journal.shards)
        self.bad_rows = sum(s.bad_rows for s in self._journal.shards)

    def _read_ids(self) -> Iterator[Array]:
        # Ids of the open shard can only be read once it is a file.
        self._busy = True
        self._end_shard()
        self._busy = False
        for part in read_chunks(self._rows(), ("ids",)):
            yield cast(Array, part.ids)
        if self._waiting is not None:
            yield cast(Array, self._waiting[0].ids)

    def _check_counts(self, meta: dict[str, Any], rows: ShardRows) -> None:
        where = f"Ending the run in {self._journal.folder}"
        reached = self._journal.position
        if not (rows.length == self.written == self.metrics.rows and self.written + self.bad_rows == reached):
            raise StoreError(
                f"{where}: {self.written} rows and {self.bad_rows} bad ones were taken, {rows.length} rows are in shards, "
                f"and they reach position {reached}. Rows are missing or doubled."
            )
        counts = meta.get("rows")
        if counts is None:
            return
        written, bad = counts.get("written"), (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
        if (written, bad) != (self.written, self.bad_rows):
            raise StoreError(
                f"{where}: meta speaks of {written} rows and {bad} bad ones, {self.written} and {self.bad_rows} were taken."
            )
