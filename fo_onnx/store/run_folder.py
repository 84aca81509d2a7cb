"""The run folder: what every run with ``out=`` is written into, so that it survives a kill and can go on.

::

    run.json                     immutable: what is run, and how
    journal.jsonl                one line per finished shard
    data/part-<start>.parquet    finished shards
    errors.jsonl   .lock         rows that came to nothing; one writer at a time
    manifest.json                written last: the run is complete
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ResumeError, StoreError, StoreExistsError, StoreNotFoundError, StoreWriteError
from ..protocols import BadRow
from ..version import __version__
from . import files
from .formats import target_format
from .journal import NAME as JOURNAL
from .journal import Journal
from .parquet_file import GROUP_ROWS
from .run_sink import RunSink, error_lines
from .schema import SCHEMA_VERSION, Layout, encode_meta
from .shards import DATA, ERRORS, LOCK, MANIFEST, RUN, ShardRows, is_run_folder, read_run, shard_problem

if TYPE_CHECKING:
    from filelock import BaseFileLock

SHARD_BYTES = 32 * 2**20
SHARD_SECONDS = 60.0
ASSEMBLED = "assembled" + files.TEMPORARY
_OWN = {RUN, JOURNAL, ERRORS, LOCK, DATA, MANIFEST}


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
    """

    def __init__(
        self, target: Path, path: Path, lock: BaseFileLock, *, shard_bytes: int, shard_seconds: float, group_rows: int
    ) -> None:
        """Opens a folder that has its `run.json`; see `create` and `reopen`."""
        self.target, self.path = target, path
        self.shard_bytes, self.shard_seconds, self.group_rows = shard_bytes, shard_seconds, group_rows
        self._lock = lock
        self._sink: RunSink | None = None
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
            StoreExistsError: A target or an unfinished run is there and `overwrite` is false.
            StoreNotFoundError: The folder that the target shall lie in is not there.
            StoreWriteError: The operating system refuses.
            StoreError: An unknown suffix, a folder of something else, or a run that another process is writing.
        """
        target = Path(target)
        path = _place(target, overwrite)
        record = {
            "schema": SCHEMA_VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "fo_onnx": __version__,
            "target": target.name,
            "identity": identity,
            "settings": settings,
        }
        text = encode_meta(record, f"{path}/{RUN}")
        files.make_folder(path, "making a run folder")
        lock = _locked(path)
        try:
            _refuse_unfinished(path, overwrite)
            # Without run.json the rest is remains of nothing, whenever a kill comes.
            files.remove_file(path / RUN, "clearing a run folder")
            for entry in path.iterdir():
                if entry.name != LOCK:
                    remove = files.remove_tree if entry.is_dir() else files.remove_file
                    remove(entry, "clearing a run folder")
            files.make_folder(path / DATA, "making a run folder")
            files.write_bytes(path / RUN, text, "beginning a run", temporary=path / (RUN + files.TEMPORARY))
            return cls(target, path, lock, shard_bytes=shard_bytes, shard_seconds=shard_seconds, group_rows=group_rows)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def reopen(
        cls,
        target: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_seconds: float = SHARD_SECONDS,
        group_rows: int = GROUP_ROWS,
    ) -> RunFolder | None:
        """The unfinished run on its way to `target`, mended after whatever ended it; ``None`` where there is none.

        What a kill left half done is removed; the last batch of a run that ended early is dropped, so that it is run
        again whole.

        Raises:
            StoreError: A damaged folder, or one that another process is writing.
        """
        target = Path(target)
        beside = _beside(target)
        if target_format(target) is None and (beside / MANIFEST).exists():
            # A kill between the two renames that replace one finished folder by another.
            lock = _locked(beside)
            try:
                _replace_folder(beside, target)
            finally:
                lock.release()
        candidates = [beside] if target_format(target) is not None else [beside, target]
        for path in candidates:
            if (path / RUN).exists() and not (path / MANIFEST).exists():
                lock = _locked(path)
                try:
                    folder = cls(
                        target, path, lock, shard_bytes=shard_bytes, shard_seconds=shard_seconds, group_rows=group_rows
                    )
                    folder._mend()
                    return folder
                except BaseException:
                    lock.release()
                    raise
        return None

    @staticmethod
    def check_target(target: Path, *, overwrite: bool) -> None:
        """Refuses a target as `create` would, but makes nothing. Raises what `create` raises."""
        _place(Path(target), overwrite)

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

    def require(self, identity: dict[str, Any]) -> None:
        """Raises a `ResumeError` that names every key in which `identity` is not the one begun with, old and new."""
        new = json.loads(encode_meta(identity, "the identity of a run"))
        changed = differences(self.identity, new, "")
        if changed:
            lines = "; ".join(f"{key}: {old!r} then, {now!r} now" for key, (old, now) in changed.items())
            raise ResumeError(
                f"Resuming {self.path}: the run was begun with something else. {lines}. Give what it was begun with, "
                "or begin anew "
                "with overwrite=True."
            )

    def record_switch(self, position: int, reason: str) -> None:
        """Writes down that the native runner runs from `position` on; all rows before it are finished first."""
        if self._sink is not None:
            self._sink.finish_shard()
        self.journal.append({"kind": "switch", "position": position, "reason": reason})

    def sink(self, *, classes: int, id_kind: str, labels: bool, logits: bool, record_errors: bool) -> RunSink:
        """Where rows from `position` on go. Raises `ResumeError` where finished rows have other columns."""
        layout = Layout(classes, id_kind, labels, logits)
        entry = {**layout.as_dict(), "record_errors": record_errors}
        if self.journal.layout is None:
            self.journal.append({"kind": "layout", "layout": entry})
        elif changed := differences(self.journal.layout, entry, ""):
            lines = "; ".join(f"{key}: {old!r} then, {now!r} now" for key, (old, now) in changed.items())
            raise ResumeError(
                f"Resuming {self.path}: the finished rows have other columns. {lines}. Begin anew with overwrite=True."
            )
        self._sink = RunSink(self, layout, record_errors=record_errors)
        return self._sink

    def close(self) -> None:
        """Frees the lock. May be called twice. A shard that is open is given up."""
        if self._sink is not None:
            self._sink.discard()
        self._lock.release()

    def remove(self) -> None:
        """Removes the folder, of which nothing is wanted any more, and frees the lock."""
        # Without run.json the rest is remains, whenever a kill comes.
        files.remove_file(self.path / RUN, "removing a run folder")
        self.close()
        files.remove_tree(self.path, "removing a run folder")

    def add_errors(self, bad: Sequence[BadRow]) -> None:
        """Adds rows to `errors.jsonl`; durable before the shard's journal line."""
        path = self.path / ERRORS
        size = path.stat().st_size if path.exists() else 0
        files.write_at(path, size, error_lines(bad), "writing down bad rows", self.path)

    def finish(self, rows: ShardRows, meta: dict[str, Any], layout: Layout, recorded: int) -> None:
        """Turns the finished shards into the target; called by the sink.

        Args:
            rows: All rows.
            meta: Whole.
            layout: The columns.
            recorded: How many rows are in `errors.jsonl`.
        """
        form = target_format(self.target)
        if form is None:
            shards = [s.__dict__ for s in self.journal.shards]
            table = {"schema": SCHEMA_VERSION, "meta": meta, "layout": layout.as_dict(), "shards": shards}
            text = encode_meta(table, f"{self.path}/{MANIFEST}")
            files.write_bytes(
                self.path / MANIFEST, text, "ending the run", temporary=self.path / (MANIFEST + files.TEMPORARY)
            )
            if self.path != self.target:
                _replace_folder(self.path, self.target)
            self.close()
            return
        with files.OutputFile(self.target, "writing the file", temporary=self.path / ASSEMBLED, kept=self.path) as file:
            form.write(rows, meta, file)
            file.finish(before_rename=lambda: self._place_errors(recorded))
        self.remove()

    def _place_errors(self, recorded: int) -> None:
        beside = self.target.with_name(f"{self.target.name}.errors.jsonl")
        if recorded:
            temporary = self.path / ("beside" + files.TEMPORARY)
            files.write_bytes(beside, (self.path / ERRORS).read_bytes(), "writing down bad rows", temporary=temporary)
        else:
            # Of a run that is being replaced.
            files.remove_file(beside, "removing an old list of bad rows")

    def _mend(self) -> None:
        doing = "mending a run folder"
        self.journal.mend()
        if self.journal.shards and self.journal.shards[-1].last_batch:
            self.journal.drop_last_shard()
        known = {s.file for s in self.journal.shards}
        files.make_folder(self.path / DATA, doing)
        for file in (self.path / DATA).iterdir():
            if file.name not in known:
                files.remove_file(file, doing)
        for file in self.path.iterdir():
            if file.name.endswith(files.TEMPORARY):
                files.remove_file(file, doing)
        for shard in self.journal.shards:
            if problem := shard_problem(self.path, shard, hashing=True):
                raise StoreError(f"Resuming {self.path}: {problem}. Begin anew with overwrite=True.")
        self._mend_errors()

    def _mend_errors(self) -> None:
        path = self.path / ERRORS
        if not path.exists():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        kept = b"".join(line for line in lines if line.endswith(b"\n") and json.loads(line)["position"] < self.position)
        if kept != b"".join(lines):
            files.write_bytes(path, kept, "mending a run folder", temporary=self.path / (ERRORS + files.TEMPORARY))


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _place(target: Path, overwrite: bool) -> Path:
    """Where the run folder of a new run goes; refuses everything that can be refused before a row is run."""
    form = target_format(target)
    if not target.name:
        raise StoreError(f"Writing results to {str(target)!r}: a name of a file or folder was expected.")
    if not target.parent.is_dir():
        raise StoreNotFoundError(
            f"Writing {target}: the folder {target.parent} is not there; make it first, or choose another."
        )
    if not os.access(target.parent, os.W_OK):
        raise StoreWriteError(
            f"Writing {target}: the folder {target.parent} does not let you write. Choose another place."
        )
    path = _beside(target)
    if form is not None:
        if target.is_dir():
            raise StoreExistsError(f"Writing {target}: there is a folder of that name; choose another name.")
        if target.exists() and not overwrite:
            raise StoreExistsError(
                f"Writing {target}: it is there already. Replace it with overwrite=True, or choose another name."
            )
    elif target.exists():
        if not target.is_dir():
            raise StoreExistsError(
                f"Writing {target}: a name without a suffix is a run folder, but a file is there. Choose another name."
            )
        if (target / MANIFEST).exists():
            if not overwrite:
                raise StoreExistsError(
                    f"Writing {target}: a finished run folder is there already. Replace it with overwrite=True, or "
                    "choose another name."
                )
        else:
            path = target
    else:
        path = target
    _refuse_unfinished(path, overwrite)
    _refuse_unfinished(_beside(target), overwrite)
    return path


def _refuse_unfinished(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        raise StoreExistsError(f"Writing {path}: a run folder of that name is needed, but a file is there. Remove it.")
    if is_run_folder(path):
        if not overwrite:
            raise StoreExistsError(
                f"Writing {path}: an unfinished run is there. resume=True goes on with it, overwrite=True begins anew."
            )
        return
    strange = [e.name for e in path.iterdir() if e.name not in _OWN and not e.name.endswith(files.TEMPORARY)]
    if strange:
        raise StoreExistsError(
            f"Writing {path}: the folder holds files that are of no run ({', '.join(sorted(strange)[:5])}), which are "
            "never removed. "
            "Choose another name."
        )


def _locked(path: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as err:
        raise StoreError(
            f"Opening {path}: another process is writing this run. Wait until it ends, or choose another name."
        ) from err
    except OSError as err:
        raise StoreWriteError(
            f"Opening {path}: its lock cannot be taken ({err.strerror or err}). Look at the rights of the folder."
        ) from err
    return lock


def _replace_folder(new: Path, target: Path) -> None:
    """Puts a finished folder in the place of another, which is removed; `reopen` goes on with it after a kill."""
    old = target.with_name(f"{target.name}.replaced")
    if target.exists():
        if old.exists():
            files.remove_tree(old, "replacing a run folder")
        files.move(target, old, "replacing a run folder", new)
    files.move(new, target, "replacing a run folder", new)
    if old.exists():
        files.remove_tree(old, "replacing a run folder")


def differences(old: Any, new: Any, place: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two JSON values differ, by dotted keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= differences(old.get(key), new.get(key), f"{place}.{key}" if place else str(key))
        return found
    return {} if old == new else {place: (old, new)}
