"""A run on its way to its target.

::

    run.json                     immutable: what is run, and how; marks the folder as ours
    journal.jsonl                one line per finished shard
    data/part-<start>.parquet    finished shards
    inputs.digests               8 bytes per row: a digest of its input
    errors.jsonl   .lock         bad rows; one writer at a time
    manifest.json                written last: the run is complete
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...distributions.columns import Layout
from ...errors import ResumeError, StoreError, StoreExistsError
from .. import files
from ..digest import seal_meta
from ..formats.registry import is_result, target_format
from ..schema import differences, encode_meta
from .journal import NAME as JOURNAL
from .journal import Journal
from .shard_reader import (
    DATA,
    DIGEST_BYTES,
    ERRORS,
    INPUTS,
    MANIFEST,
    RUN,
    ShardRows,
    count_rows,
    find_problems,
    read_bytes,
    read_run,
)
from .shard_writer import InputDigests, ShardLimits, is_list_of_bad_rows
from .sink import RunSink
from .target import COPY, check_errors_path, choose_folder, errors_path, is_run, list_own_entries, partial_path

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from numpy.typing import NDArray

log = logging.getLogger("fo_onnx.store")
ASSEMBLED, _, ERRORS_COPY = files.WORK_FILES
_DEFAULT_LIMITS = ShardLimits()


class RunFolder:
    """One run on its way to a target. Made by `create` or `reopen`; locked until `close`.

    Attributes:
        path: The folder.
        target: The user's ``out=``.
        identity: What must be the same for the run to be resumed, as given to `create`.
        settings: What a resumed run takes over, as given to `create`. ``settings["meta"]``, if it is there, is the meta
            that an unfinished folder is loaded with.
        journal: The record of its finished shards.
        was_resumed: Whether it was begun earlier.
    """

    def __init__(self, target: Path, path: Path, lock: BaseFileLock, limits: ShardLimits) -> None:
        """Open a folder that has its `run.json`; see `create` and `reopen`."""
        self.target, self.path = target, path
        self._lock, self._limits = lock, limits
        self._sink: RunSink | None = None
        self.was_resumed = True
        run = read_run(path)
        self.identity: dict[str, Any] = run["identity"]
        self.settings: dict[str, Any] = run["settings"]
        self.journal = Journal(path)

    @classmethod
    def create(
        cls,
        target: Path,
        identity: dict[str, Any],
        settings: dict[str, Any],
        *,
        overwrite: bool,
        limits: ShardLimits = _DEFAULT_LIMITS,
    ) -> RunFolder:
        """Begin a run.

        Args:
            target: The user's ``out=``. With a known suffix the folder is ``<name>.partial`` next to it, without one the
                target itself (next to it while a finished one is there, which stays until the new one is complete).
            identity: Fingerprints, as JSON types.
            settings: Batch size, runner and the like, as JSON types.
            overwrite: Whether a target, or an unfinished run on its way to it, may be replaced.
            limits: When a shard ends.

        Raises:
            StoreExistsError: A target or an unfinished run is there and `overwrite` is false; or something that
                fo-onnx did not make.
            StoreNotFoundError: The folder that the target shall lie in is not there.
            StoreWriteError: The operating system refuses.
            StoreError: An unknown suffix, or a run that another process is writing.
        """
        path = choose_folder(target, overwrite=overwrite)
        record = files.marker(
            files.KIND_RUN,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            target=target.name,
            identity=identity,
            settings=settings,
        )
        record = json.loads(encode_meta(record, f"{path}/{RUN}"))
        doing = "beginning a run"
        # What is there may be replaced, since it was not refused above.
        files.remove_remains(target.parent, list_own_entries)
        if files.read_marker(path) is not None:
            with files.lock_folder(path):
                files.remove_folder(path, list_own_entries(path), doing)
        lock = files.begin_folder(path, RUN, record, doing)
        try:
            files.make_folder(path / DATA, doing)
            folder = cls(target, path, lock, limits)
        except BaseException:
            with suppress(StoreError):
                files.remove_folder(path, list_own_entries(path), doing)
            lock.release()
            raise
        folder.was_resumed = False
        return folder

    @classmethod
    def reopen(cls, target: Path, *, limits: ShardLimits = _DEFAULT_LIMITS) -> RunFolder | None:
        """Return the unfinished run on its way to `target`, as far as it is sound; ``None`` if there is none.

        Nothing on the disk is changed before `sink` is called. Then the last batch of a run that ended early is
        dropped, so that it is run again whole, and so is everything from the first shard on that is damaged or gone, in
        a finished run folder too.

        Raises:
            StoreError: A damaged folder, or one that another process is writing.
        """
        files.remove_remains(target.parent, list_own_entries)
        partial = partial_path(target)
        is_folder = target_format(target) is None
        if is_folder and is_run(partial) and (partial / MANIFEST).exists():
            # A kill between the two renames that replace one finished folder by another.
            with files.lock_folder(partial):
                _replace_folder(partial, target)
        for path in [partial, target] if is_folder else [partial]:
            if not is_run(path) or not (path / RUN).exists():
                continue
            lock = files.take_lock(path)
            try:
                folder = cls(target, path, lock, limits)
                if folder.settings != COPY and folder._has_work_left():
                    return folder
            except BaseException:
                lock.release()
                raise
            lock.release()
        return None

    @staticmethod
    def check_target(target: Path, *, overwrite: bool) -> None:
        """Refuse a target as `create` would, but make nothing. Raises what `create` raises."""
        choose_folder(target, overwrite=overwrite)

    @staticmethod
    def check_place_of_bad_rows(target: Path) -> None:
        """Raise a `StoreExistsError` if ``<name>.errors.jsonl`` is there, and is no list of bad rows."""
        check_errors_path(target)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def position(self) -> int:
        """Return the number of rows of the source that are finished: the run is resumed there."""
        return self.journal.position

    @property
    def switched_at(self) -> int | None:
        """Return the first position that the native runner ran; ``None`` if it ran none."""
        return self.journal.switched_at

    @property
    def switch_reason(self) -> str | None:
        """Return why it did."""
        return self.journal.switch_reason

    @property
    def difference(self) -> str | None:
        """Return how the exported model was found to differ from the original, which ended the run; ``None`` if it was not."""
        return self.journal.difference

    @property
    def counts(self) -> dict[str, int]:
        """Return the numbers of rows in finished shards that were written, skipped and quarantined."""
        return count_rows(self.journal.shards)

    def finished_rows(self) -> ShardRows | None:
        """Return the rows that are finished, to compare the data with; ``None`` if there are none."""
        if self.journal.layout is None or not self.journal.shards:
            return None
        return ShardRows(self.path, self.journal.shards, Layout.from_dict(self.journal.layout, "the journal"))

    def finished_inputs(self, start: int, stop: int) -> NDArray[np.uint64] | None:
        """Return the digests of the inputs of finished rows ``start`` to ``stop − 1``; ``None`` if none were recorded.

        0 stands for a row that could not be read.
        """
        if any(s.inputs_crc32 is None for s in self.journal.shards):
            return None
        data = read_bytes(self.path / INPUTS, DIGEST_BYTES * start, DIGEST_BYTES * (stop - start))
        return None if data is None else np.frombuffer(data, dtype="<u8")

    def record_difference(self, reason: str) -> None:
        """Write down that the exported model was found to differ from the original; nothing of the run can be relied on."""
        self.journal.append({"kind": "difference", "reason": reason})

    def record_switch(self, position: int, reason: str) -> None:
        """Write down that the native runner runs from `position` on; all rows before it are finished first."""
        if self._sink is not None:
            self._sink.finish_shard()
        self.journal.append({"kind": "switch", "position": position, "reason": reason})

    def sink(
        self,
        *,
        classes: int,
        id_kind: str,
        labels: bool,
        logits: bool,
        on_error: str = "fail",
        inputs: InputDigests | None = None,
    ) -> RunSink:
        """Return where rows from `position` on go, after what an early end, a kill or damage left was repaired.

        The first four arguments are those of a `Layout`. From here on, `on_error` says what happens to bad rows (``"fail"``,
        ``"skip"`` or ``"record"``), and digests of the rows' inputs come from `inputs`, if they are recorded.

        Raises:
            ResumeError: Finished rows have other columns.
            StoreExistsError: There is something in the folder, or where the list of bad rows shall lie, that is not ours.
        """
        layout = Layout(classes, id_kind, labels, logits)
        if self.journal.layout is not None and (changed := differences(self.journal.layout, layout.as_dict())):
            lines = "; ".join(f"{key}: {old!r} then, {now!r} now" for key, (old, now) in changed.items())
            raise ResumeError(
                f"Resuming {self.path}: the finished rows have other columns. {lines}. Begin anew with overwrite=True."
            )
        if on_error == "record":
            check_errors_path(self.target)
        if self.was_resumed:
            self._repair()
        # The journal says what holds from here on, where it does not yet.
        if self.journal.layout is None:
            self.journal.append({"kind": "layout", "layout": layout.as_dict()})
        if not self.journal.on_error or self.journal.on_error[-1][1] != on_error:
            self.journal.append({"kind": "on_error", "position": self.position, "on_error": on_error})
        self._sink = RunSink(
            self.journal,
            layout,
            self._limits,
            record_errors=on_error == "record",
            inputs=inputs,
            publish=self._publish,
            release=lambda has_rows: self.close() if has_rows else self.remove(),
        )
        return self._sink

    def close(self) -> None:
        """Free the lock. May be called twice. A shard that is open is given up."""
        if self._sink is not None:
            self._sink.discard()
        self._lock.release()

    def remove(self) -> None:
        """Remove the folder, of which nothing is wanted any more, and free the lock."""
        try:
            files.remove_folder(self.path, list_own_entries(self.path), "removing a run folder")
        finally:
            self.close()

    def _publish(self, rows: ShardRows, meta: dict[str, Any], row_digest: str) -> None:
        """Turn the finished shards into the target."""
        meta = seal_meta(meta, row_digest, str(self.target))
        form = target_format(self.target)
        # A run folder is its own result, once its manifest is there.
        if form is None:
            shards = [s.__dict__ for s in self.journal.shards]
            table = files.marker(files.KIND_RUN, meta=meta, layout=rows.layout.as_dict(), shards=shards)
            record = json.loads(encode_meta(table, f"{self.path}/{MANIFEST}"))
            files.write_marker(self.path, MANIFEST, record, "ending the run")
            if self.path != self.target:
                _replace_folder(self.path, self.target)
            self.close()
            return
        # A file is assembled in the folder, which is removed when the file is in its place.
        temporary = self.path / ASSEMBLED
        with files.OutputFile(self.target, "writing the file", temporary=temporary, replaces=is_result) as file:
            form.write(rows, meta, file)
            file.finish(before_rename=self._publish_errors)
        try:
            self.remove()
        except StoreError as err:
            # The result is whole, and that is what counts.
            log.warning("%s is finished, but the folder that it was written through stays: %s", self.target, err)

    def _publish_errors(self) -> None:
        path = errors_path(self.target)
        if self.journal.errors_bytes:
            files.write_bytes(
                path,
                (self.path / ERRORS).read_bytes(),
                "writing down bad rows",
                temporary=self.path / ERRORS_COPY,
                replaces=is_list_of_bad_rows,
            )
        elif not path.is_symlink() and is_list_of_bad_rows(path):
            # Of a run that is being replaced.
            files.remove_file(path, is_list_of_bad_rows, "removing an old list of bad rows")

    def _has_work_left(self) -> bool:
        """Leave out the shards that cannot be built on; return whether rows, or the end of the run, are missing."""
        is_finished = (self.path / MANIFEST).exists()
        # Shards are sound up to the first that is damaged, or holds a batch that may have been cut short.
        shards = list(takewhile(lambda shard: not shard.last_batch, self.journal.shards))
        sound, damage = next(find_problems(self.path, shards), (len(shards), None))
        problem = damage or self.journal.damage
        is_whole = is_finished and sound == len(self.journal.shards) and problem is None
        if not is_whole:
            self.journal.drop_shards(sound)
        if problem is not None:
            log.warning("resuming %s: %s; it continues from row %d", self.path, problem, self.position)
        return not is_whole

    def _repair(self) -> None:
        """Make the folder hold what the journal says now, and nothing else."""
        doing = "repairing a run folder"
        own = list_own_entries(self.path)
        if foreign := files.foreign_entries(self.path, own):
            raise StoreExistsError(
                f"Resuming {self.path}: it holds what is not of this run and is never removed: {files.list_names(foreign)}. "
                "Move that elsewhere."
            )
        # The files of dropped shards go before their lines: a kill then leaves lines without files, which are dropped again.
        wanted = {JOURNAL, ERRORS, INPUTS, *(f"{DATA}/{s.file}" for s in self.journal.shards)}
        files.remove_entries(self.path, [MANIFEST, *(name for name in own if name not in wanted)], doing)
        self.journal.cut()
        files.make_folder(self.path / DATA, doing)
        errors = self.path / ERRORS
        if errors.exists():
            files.write_at(errors, self.journal.errors_bytes, b"", doing)


def _replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in place of another, which is removed; `reopen` continues it after a kill."""
    doing = "replacing a run folder"
    if os.path.lexists(target):
        files.replace_folder(new, target, list_own_entries(target), doing)
    else:
        files.move_folder(new, target, doing)
