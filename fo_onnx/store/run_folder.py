"""The run folder: what every run with ``out=`` is written into, so that it survives a kill and can go on.

::

    run.json                     immutable: what is run, and how; marks the folder as ours
    journal.jsonl                one line per finished shard
    data/part-<start>.parquet    finished shards
    inputs.digests               8 bytes per row: a digest of its input
    errors.jsonl   .lock         rows that came to nothing; one writer at a time
    manifest.json                written last: the run is complete
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ResumeError, StoreError, StoreExistsError, StoreNotFoundError, StoreWriteError
from ..protocols import BadRow
from . import files
from .formats import FORMATS, is_result, target_format
from .journal import NAME as JOURNAL
from .journal import Journal, shard_files
from .parquet_file import GROUP_ROWS
from .run_sink import InputDigests, RunSink, error_lines, is_list_of_bad_rows
from .schema import Layout, encode_meta
from .shards import (
    DATA,
    DIGEST_BYTES,
    ERRORS,
    INPUTS,
    MANIFEST,
    RUN,
    ShardRows,
    beside_problem,
    count_rows,
    layout_of,
    read_piece,
    read_run,
    shard_problem,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from numpy.typing import NDArray

log = logging.getLogger("fo_onnx.store")
SHARD_BYTES = 32 * 2**20
SHARD_SECONDS = 60.0
ASSEMBLED, _, BESIDE = files.WORK_FILES
COPY = {"copy": True}
"""The settings of a folder that is a copy of rows which lie elsewhere: half of one is worth nothing."""


def own_entries(folder: Path) -> list[str]:
    """The files that may be in a run folder beside its marker and lock, as its journal accounts for them."""
    shards = sorted(shard_files(folder))
    begun = [name + files.TEMPORARY for name in (JOURNAL, *shards)]
    return [*(f"{DATA}/{name}" for name in shards), *begun, *files.WORK_FILES, ERRORS, INPUTS, JOURNAL]


class RunFolder:
    """One run on its way to a target. Made by `create` or `reopen`; holds a lock until `close`.

    Attributes:
        path: The folder.
        target: The user's ``out=``.
        identity: What must be the same for the run to go on, as given to `create`.
        settings: What a resumed run takes over, as given to `create`. ``settings["meta"]``, where it is there, is the
            meta that an unfinished folder is loaded with.
        position: Rows of the source that are finished: where to go on.
        switched_at: Position from which on the native runner ran, or ``None``.
        switch_reason: Why.
        was_resumed: Whether it was begun earlier.
    """

    def __init__(
        self, target: Path, path: Path, lock: BaseFileLock, *, shard_bytes: int, shard_seconds: float, group_rows: int
    ) -> None:
        """Opens a folder that has its `run.json`; see `create` and `reopen`."""
        self.target, self.path = target, path
        self.shard_bytes, self.shard_seconds, self.group_rows = shard_bytes, shard_seconds, group_rows
        self._lock = lock
        self._sink: RunSink | None = None
        self._mended = False
        self.was_resumed = True
        run = read_run(path)
        self.identity: dict[str, Any] = run["identity"]
        self.settings: dict[str, Any] = run["settings"]
        self.journal = Journal(path, cut=True)
        self._dropped = [f"{DATA}/{name}" for name in sorted(shard_files(path))]

    @classmethod
    def create(
        cls,
        target: Path,
        identity: dict[str, Any],
        settings: dict[str, Any],
        *,
        overwrite: bool,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
        group_rows: int = GROUP_ROWS,
    ) -> RunFolder:
        """Begins a run.

        Args:
            target: The user's ``out=``. With a known suffix the folder is ``<name>.partial`` beside it, without one the
                target itself (beside it while a finished one is there, which stays until the new one is complete).
            identity: Fingerprints, as JSON types.
            settings: Batch size, runner and the like, as JSON types.
            overwrite: Whether a target, or an unfinished run on its way to it, may be replaced.
            shard_bytes: Float data after which a shard ends.
            shard_seconds: Seconds after which a shard ends.
            group_rows: Rows per row group, at most.

        Raises:
            StoreExistsError: A target or an unfinished run is there and `overwrite` is false; or something that
                fo-onnx did not make.
            StoreNotFoundError: The folder that the target shall lie in is not there.
            StoreWriteError: The operating system refuses.
            StoreError: An unknown suffix, or a run that another process is writing.
        """
        target = Path(target)
        path = _place(target, overwrite)
        record = files.marker(
            files.KIND_RUN,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            target=target.name,
            identity=identity,
            settings=settings,
        )
        record = json.loads(encode_meta(record, f"{path}/{RUN}"))
        doing = "beginning a run"
        files.remove_remains(target.parent, own_entries)
        if files.read_marker(path) is not None:
            lock = files.take_lock(path)
            try:
                files.remove_folder(path, own_entries(path), doing)
            finally:
                lock.release()
        made, begun, held = not os.path.lexists(path), False, None
        try:
            files.make_folder(path, doing)
            held = lock = files.take_lock(path)
            if not files.may_begin_in(path):
                raise StoreError(f"Opening {path}: another process has just begun a run there. Choose another name.")
            begun = True
            files.write_marker(path, RUN, record, doing)
            files.make_folder(path / DATA, doing)
            folder = cls(
                target, path, lock, shard_bytes=shard_bytes, shard_seconds=shard_seconds, group_rows=group_rows
            )
        except BaseException:
            # A folder that was just begun holds nothing; one that cannot be removed may be begun in.
            with suppress(StoreError):
                if begun and files.read_marker(path) is not None:
                    files.remove_folder(path, own_entries(path), doing)
                elif made:
                    files.abandon_folder(path)
            if held is not None:
                held.release()
            raise
        folder._mended, folder.was_resumed = True, False
        return folder

    @classmethod
    def reopen(
        cls,
        target: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
        group_rows: int = GROUP_ROWS,
    ) -> RunFolder | None:
        """The unfinished run on its way to `target`, as far as it is sound; ``None`` where there is none.

        Nothing on the disk is changed before `sink` is called. Then the last batch of a run that ended early is
        dropped, so that it is run again whole, and so is everything from the first shard on that is damaged or gone, in
        a finished run folder too.

        Raises:
            StoreError: A damaged folder, or one that another process is writing.
        """
        target = Path(target)
        files.remove_remains(target.parent, own_entries)
        beside = _beside(target)
        is_folder = target_format(target) is None
        if is_folder and _is_run(beside) and (beside / MANIFEST).exists():
            # A kill between the two renames that replace one finished folder by another.
            lock = files.take_lock(beside)
            try:
                _replace_folder(beside, target)
            finally:
                lock.release()
        for path in [beside, target] if is_folder else [beside]:
            if not _is_run(path) or not (path / RUN).exists():
                continue
            lock = files.take_lock(path)
            try:
                folder = cls(
                    target, path, lock, shard_bytes=shard_bytes, shard_seconds=shard_seconds, group_rows=group_rows
                )
                if folder.settings != COPY and folder._has_work_left():
                    return folder
            except BaseException:
                lock.release()
                raise
            lock.release()
        return None

    @staticmethod
    def check_target(target: Path, *, overwrite: bool) -> None:
        """Refuses a target as `create` would, but makes nothing. Raises what `create` raises."""
        _place(Path(target), overwrite)

    @staticmethod
    def check_place_of_bad_rows(target: Path) -> None:
        """Refuses a target beside which the list of bad rows would take the place of what is not ours.

        Raises:
            StoreExistsError: ``<name>.errors.jsonl`` is there, and is no such list.
        """
        if target_format(target) is not None:
            files.require_replaceable(_errors_beside(target), is_list_of_bad_rows, "writing down bad rows")

    def __enter__(self) -> RunFolder:
        """The folder."""
        return self

    def __exit__(self, *_: object) -> None:
        """Frees the lock."""
        self.close()

    @property
    def position(self) -> int:
        """Rows of the source that are finished."""
        return self.journal.position

    @property
    def switched_at(self) -> int | None:
        """Position from which on the native runner ran."""
        return self.journal.switched_at

    @property
    def switch_reason(self) -> str | None:
        """Why it did."""
        return self.journal.switch_reason

    @property
    def counts(self) -> dict[str, int]:
        """Rows in finished shards that were written, skipped and quarantined."""
        return count_rows(self.journal.shards)

    def finished_rows(self) -> ShardRows | None:
        """The rows that are finished, to compare the data with; ``None`` where there are none."""
        if self.journal.layout is None or not self.journal.shards:
            return None
        return ShardRows(self.path, self.journal.shards, layout_of(self.journal))

    def finished_inputs(self, start: int, stop: int) -> NDArray[np.uint64] | None:
        """The digests of the inputs of finished rows ``start`` to ``stop − 1``; ``None`` where none were kept.

        0 stands for a row that could not be read.
        """
        if any(s.inputs_crc32 is None for s in self.journal.shards):
            return None
        data = read_piece(self.path / INPUTS, DIGEST_BYTES * start, DIGEST_BYTES * (stop - start))
        return None if data is None else np.frombuffer(data, dtype="<u8")

    def record_switch(self, position: int, reason: str) -> None:
        """Writes down that the native runner runs from `position` on; all rows before it are finished first."""
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
        """Where rows from `position` on go; mends what an early end, a kill or damage left.

        Args:
            classes: Number of classes.
            id_kind: ``"int"`` or ``"str"``.
            labels: Whether rows carry labels.
            logits: Whether rows carry logits.
            on_error: What happens to bad rows from here on: ``"fail"``, ``"skip"`` or ``"record"``.
            inputs: Where digests of the rows' inputs come from, if they are kept.

        Raises:
            ResumeError: Finished rows have other columns.
            StoreExistsError: There is something in the folder, or where the list of bad rows shall lie, that is not ours.
        """
        layout = Layout(classes, id_kind, labels, logits)
        if self.journal.layout is not None and (changed := differences(self.journal.layout, layout.as_dict(), "")):
            lines = "; ".join(f"{key}: {old!r} then, {now!r} now" for key, (old, now) in changed.items())
            raise ResumeError(
                f"Resuming {self.path}: the finished rows have other columns. {lines}. Begin anew with overwrite=True."
            )
        record_errors = on_error == "record"
        if record_errors:
            self.check_place_of_bad_rows(self.target)
        self._mend()
        if self.journal.layout is None:
            self.journal.append({"kind": "layout", "layout": layout.as_dict()})
        if not self.journal.on_error or self.journal.on_error[-1][1] != on_error:
            self.journal.append({"kind": "on_error", "position": self.position, "on_error": on_error})
        self._sink = RunSink(self, layout, record_errors=record_errors, inputs=inputs)
        return self._sink

    def close(self) -> None:
        """Frees the lock. May be called twice. A shard that is open is given up."""
        if self._sink is not None:
            self._sink.discard()
        self._lock.release()

    def remove(self) -> None:
        """Removes the folder, of which nothing is wanted any more, and frees the lock."""
        try:
            files.remove_folder(self.path, own_entries(self.path), "removing a run folder")
        finally:
            self.close()

    def add_errors(self, bad: Sequence[BadRow]) -> tuple[int, int]:
        """Adds rows to `errors.jsonl`; durable before the shard's journal line. Returns bytes and CRC-32 of their lines."""
        lines = error_lines(bad)
        files.write_at(self.path / ERRORS, self._errors_bytes(), lines, "writing down bad rows")
        return len(lines), zlib.crc32(lines)

    def add_inputs(self, digests: NDArray[np.uint64]) -> int:
        """Adds digests of rows' inputs to those of the shards before; durable likewise. Returns their CRC-32."""
        data = digests.astype("<u8").tobytes()
        files.write_at(self.path / INPUTS, DIGEST_BYTES * self.position, data, "writing down digests of inputs")
        return zlib.crc32(data)

    def finish(self, rows: ShardRows, meta: dict[str, Any], layout: Layout) -> None:
        """Turns the finished shards into the target; called by the sink.

        Args:
            rows: All rows.
            meta: Whole.
            layout: The columns.
        """
        form = target_format(self.target)
        if form is None:
            shards = [s.__dict__ for s in self.journal.shards]
            table = files.marker(files.KIND_RUN, meta=meta, layout=layout.as_dict(), shards=shards)
            files.write_marker(
                self.path, MANIFEST, json.loads(encode_meta(table, f"{self.path}/{MANIFEST}")), "ending the run"
            )
            if self.path != self.target:
                _replace_folder(self.path, self.target)
            self.close()
            return
        with files.OutputFile(
            self.target, "writing the file", temporary=self.path / ASSEMBLED, replaces=is_result
        ) as file:
            form.write(rows, meta, file)
            file.finish(before_rename=self._place_errors)
        try:
            self.remove()
        except StoreError as err:
            # The result is whole, and that is what counts.
            log.warning("%s is finished, but the folder that it was written through stays: %s", self.target, err)

    def _place_errors(self) -> None:
        beside = _errors_beside(self.target)
        if self._errors_bytes():
            files.write_bytes(
                beside,
                (self.path / ERRORS).read_bytes(),
                "writing down bad rows",
                temporary=self.path / BESIDE,
                replaces=is_list_of_bad_rows,
            )
        elif not beside.is_symlink() and is_list_of_bad_rows(beside):
            # Of a run that is being replaced.
            files.remove_file(beside, is_list_of_bad_rows, "removing an old list of bad rows")

    def _errors_bytes(self) -> int:
        return sum(s.errors_bytes for s in self.journal.shards)

    def _has_work_left(self) -> bool:
        """Leaves the shards out that cannot be gone on from; whether rows, or the end of the run, are missing."""
        finished = (self.path / MANIFEST).exists()
        sound, errors_start, problem = 0, 0, None
        for shard in self.journal.shards:
            if shard.last_batch:
                break
            problem = shard_problem(self.path, shard, hashing=True) or beside_problem(self.path, shard, errors_start)
            if problem is not None:
                break
            sound, errors_start = sound + 1, errors_start + shard.errors_bytes
        problem = problem or self.journal.damaged
        whole = finished and sound == len(self.journal.shards) and problem is None
        if not whole:
            self.journal.keep(sound)
        if problem is not None:
            log.warning("resuming %s: %s; it goes on from row %d", self.path, problem, self.position)
        return not whole

    def _mend(self) -> None:
        """Makes the folder hold what the journal says now, and nothing else."""
        if self._mended:
            return
        doing = "mending a run folder"
        if foreign := files.foreign_entries(self.path, [*own_entries(self.path), *self._dropped]):
            raise StoreExistsError(
                f"Resuming {self.path}: it holds what is not of this run and is never removed: {files.list_names(foreign)}. "
                "Move that elsewhere."
            )
        # The files of dropped shards go before their lines: a kill then leaves lines without files, which are dropped again.
        kept = {f"{DATA}/{s.file}" for s in self.journal.shards}
        stale = [name for name in own_entries(self.path) if name.endswith(files.TEMPORARY)]
        files.remove_entries(self.path, [MANIFEST, *stale, *(n for n in self._dropped if n not in kept)], doing)
        self.journal.rewrite()
        files.make_folder(self.path / DATA, doing)
        errors = self.path / ERRORS
        if errors.exists():
            files.write_at(errors, self._errors_bytes(), b"", doing)
        self._mended = True


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _errors_beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.errors.jsonl")


def _is_run(path: Path) -> bool:
    found = files.read_marker(path)
    return found is not None and found["kind"] == files.KIND_RUN


def _place(target: Path, overwrite: bool) -> Path:
    """Where the run folder of a new run goes; refuses everything that can be refused before a row is run."""
    _check_name(target)
    form = target_format(target)
    beside = _beside(target)
    if form is not None:
        files.require_replaceable(target, lambda path: True, "writing the result")
        if target.exists() and not overwrite:
            raise StoreExistsError(
                f"Writing {target}: it is there already. Replace it with overwrite=True, or choose another name."
            )
        files.require_replaceable(target, is_result, "writing the result")
        _refuse_unfinished(beside, overwrite)
        return beside
    path = target
    if os.path.lexists(target):
        if target.is_symlink() or not target.is_dir():
            what = "a link" if target.is_symlink() else "a file"
            raise StoreExistsError(
                f"Writing {target}: a name without a suffix is a run folder, but {what} is there. Choose another name."
            )
        if _is_run(target) and (target / MANIFEST).exists():
            if not overwrite:
                raise StoreExistsError(
                    f"Writing {target}: a finished run folder is there already. Replace it with overwrite=True, or "
                    "choose another name."
                )
            _refuse_foreign(target)
            path = beside
    _refuse_unfinished(path, overwrite)
    _refuse_unfinished(beside, overwrite)
    return path


def _check_name(target: Path) -> None:
    if not target.name or target.name == "-" or target.name in FORMATS:
        raise StoreError(
            f"Writing results to {str(target)!r}: the name of a file or folder was expected, such as net.parquet."
        )
    try:
        size = len(os.fsencode(_errors_beside(target).name))
        there = target.parent.is_dir()
    except ValueError as err:
        raise StoreError(f"Writing results to {str(target)!r}: it is no name of a file ({err}).") from err
    if not there:
        raise StoreNotFoundError(
            f"Writing {target}: the folder {target.parent} is not there; make it first, or choose another."
        )
    longest = os.pathconf(target.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if size > longest:
        raise StoreWriteError(
            f"Writing {target}: the name has {len(os.fsencode(target.name))} bytes, and with what a run needs beside it "
            f"({_errors_beside(Path('…')).name}) more than the {longest} that this disk allows. Choose a shorter name."
        )
    if not os.access(target.parent, os.W_OK):
        raise StoreWriteError(
            f"Writing {target}: the folder {target.parent} does not let you write. Choose another place."
        )


def _refuse_unfinished(path: Path, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        what = "a link" if path.is_symlink() else "a file"
        raise StoreExistsError(f"Writing {path}: a run folder of that name is needed, but {what} is there. Remove it.")
    if not _is_run(path):
        if files.may_begin_in(path) or (files.read_marker(path) or {}).get("kind") == files.KIND_WORK:
            return
        strange = files.foreign_entries(path, ())
        names = files.list_names(strange) or f"a {RUN} or {MANIFEST} without the marker of fo-onnx"
        raise StoreExistsError(
            f"Writing {path}: the folder holds files that are of no run ({names}), which are never removed. Choose another "
            "name."
        )
    if not overwrite and not _is_copy(path):
        raise StoreExistsError(
            f"Writing {path}: an unfinished run is there. resume=True goes on with it, overwrite=True begins anew."
        )
    _refuse_foreign(path)


def _is_copy(path: Path) -> bool:
    try:
        return bool(read_run(path)["settings"] == COPY) and not (path / MANIFEST).exists()
    except StoreError:
        return False


def _refuse_foreign(path: Path) -> None:
    if foreign := files.foreign_entries(path, own_entries(path)):
        raise StoreExistsError(
            f"Writing {path}: the run folder there also holds what is not of its run and is never removed: "
            f"{files.list_names(foreign)}. Move that elsewhere, or "
            "choose another name."
        )


def _replace_folder(new: Path, target: Path) -> None:
    """Puts a finished folder in the place of another, which is removed; `reopen` goes on with it after a kill."""
    doing = "replacing a run folder"
    if os.path.lexists(target):
        files.replace_folder(new, target, own_entries(target), doing)
    else:
        files.move_folder(new, target, doing)


def differences(old: Any, new: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two JSON values differ, by dotted keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return found
    return {} if old == new else {place: (old, new)}
