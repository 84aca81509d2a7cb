"""One run from the first row to the finished file: what is gone on with, recorded, kept and returned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..distributions import Distributions
from ..errors import DataError, FoOnnxError, OptionError, ResumeError, StoreExistsError
from ..options import DataOptions, OutputOptions, RunOptions
from ..parity import ParityReport
from ..protocols import Batch, Runner, Sink, Source
from ..run_control import current
from ..signals import signals_deferred
from ..spec import PROBABILITY_KINDS
from ..store import MemorySink, RunFolder, load
from ..store.run_sink import InputDigests, RunSink
from ..store.shards import MANIFEST
from . import record, resuming
from .pipeline import Outcome, Pipeline, label_codes
from .progress import Progress
from .selection import Selection, empty_selection
from .tuning import Tuning, first_rows

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("fo_onnx.engine")
T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Where a run's rows go.

    Attributes:
        out: A file or a folder; ``None`` keeps them in memory.
        overwrite: Whether what is there may be replaced.
        resume: Whether an unfinished run there is gone on with.
        meta: The caller's own record.
    """

    out: Path | None = None
    overwrite: bool = False
    resume: bool = False
    meta: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.resume and (self.overwrite or self.out is None):
            what = "out=" if self.out is None else "overwrite=False"
            raise OptionError(f"resume=True goes on with the run in out=, so that it needs {what}.")


class Run:
    """A run of an engine over a source."""

    def __init__(
        self, engine: Engine, source: Source, data: DataOptions, run: RunOptions, output: OutputOptions, target: Target
    ) -> None:
        self._engine, self._source, self._target = engine, source, target
        self._data, self._run, self._output = data, run, output

    def execute(self) -> Distributions:
        """Runs every row that is not there yet.

        Raises:
            FoOnnxError: Something failed. What was finished is kept: in ``<name>.partial`` beside `out`, else as the
                error's attribute ``finished``.
        """
        out, folder = self._target.out, self._reopened()
        if out is None:
            return self._in_memory()
        try:
            return self._in_folder(out, folder)
        finally:
            if folder is not None:
                folder.close()

    def prepare(self) -> Selection:
        """Does what `execute` does before its first row, and runs the first batch into memory; no row is written.

        Raises:
            FoOnnxError: What `execute` would raise before its first row, or for the rows of its first batch.
        """
        out, folder = self._target.out, self._reopened()
        try:
            selection = self._select(folder)
            known = self._identity(selection)
            if folder is not None:
                resuming.require_same_run(folder, known, self._source, self._data.limit)
                relabel = self._pipeline(selection, folder.position, folder).pipeline.relabel
                self._reading(lambda: resuming.require_same_rows(folder, self._source, relabel))
            elif out is not None and self._target.resume and _is_finished(out):
                _finished_before(out, known)
        finally:
            if folder is not None:
                folder.close()
        self._first_batch(selection)
        return selection

    def _first_batch(self, selection: Selection) -> None:
        source = _FirstBatch(self._source, selection.tuning.batch_size)
        # Where bad rows would be written down, they are left out here.
        data = replace(self._data, on_error="skip") if self._data.on_error == "record" else self._data
        first = Run(self._engine, source, data, replace(self._run, progress=False), self._output, Target())
        sink = MemorySink(
            source.length, classes=_classes(selection), id_kind=source.id_kind, labels=source.has_labels,
            logits=self._output.keep_logits,
        )  # fmt: skip
        first._pipeline(selection, 0).execute(sink)

    def _reopened(self) -> RunFolder | None:
        """The unfinished run that is gone on with, if there is one; else the target must be one that may be written."""
        out = self._target.out
        if out is None:
            if self._data.on_error == "record":
                raise OptionError("on_error='record' writes bad rows down beside the result, so that it needs out=.")
            return None
        if self._data.on_error == "record":
            RunFolder.check_place_of_bad_rows(out)
        folder = RunFolder.reopen(out) if self._target.resume else None
        if folder is None:
            RunFolder.check_target(out, overwrite=self._target.overwrite or self._target.resume)
        return folder

    def _in_memory(self) -> Distributions:
        selection = self._select(None)
        known = self._identity(selection)
        sink = MemorySink(
            self._source.length, classes=_classes(selection), id_kind=self._source.id_kind, labels=self._source.has_labels,
            logits=self._output.keep_logits,
        )  # fmt: skip
        pipeline = self._pipeline(selection, 0)
        try:
            outcome = pipeline.execute(sink)
        except BaseException as err:
            with signals_deferred(err):
                finished = sink.distributions(self._meta(selection, known, pipeline.outcome))
                _annotate(err, f"The {len(finished)} finished rows are in this error's attribute `finished`.")
                err.finished = finished  # type: ignore[attr-defined]
            raise
        return sink.distributions(self._meta(selection, known, outcome))

    def _in_folder(self, out: Path, folder: RunFolder | None) -> Distributions:
        selection = self._select(folder)
        known = self._identity(selection)
        if folder is not None:
            resuming.require_same_run(folder, known, self._source, self._data.limit)
        elif self._target.resume and _is_finished(out):
            return _finished_before(out, known)
        else:
            folder = RunFolder.create(
                out,
                known,
                record.settings(selection, known),
                overwrite=self._target.overwrite,
            )
        with folder:
            inputs = InputDigests()
            pipeline = self._pipeline(selection, folder.position, folder, inputs)
            self._reading(lambda: resuming.require_same_rows(folder, self._source, pipeline.pipeline.relabel))
            sink = folder.sink(
                classes=_classes(selection), id_kind=self._source.id_kind, labels=self._source.has_labels,
                logits=self._output.keep_logits, on_error=self._data.on_error, inputs=inputs,
            )  # fmt: skip
            try:
                outcome = pipeline.execute(sink)
                self._require_named_end(folder, sink)
                with signals_deferred():
                    sink.finish_shard()
                    sink.commit(self._meta(selection, known, outcome, folder))
            except BaseException as err:
                with signals_deferred(err):
                    kept = sink.abort(err)
                    if kept is not None:
                        _annotate(
                            err,
                            f"The {sink.written} finished rows are kept in {kept}; resume=True (--resume) goes on from them.",
                        )
                raise
        return load(out)

    def _reading(self, read: Callable[[], T]) -> T:
        """What `read` gives, which is waited for no longer than the run may last."""
        return current().bounded(read, "while a row was being read")

    def _select(self, folder: RunFolder | None) -> Selection:
        example = first_rows(self._source)
        if len(example) == 0:
            return empty_selection(self._engine.classes_without_rows(example), self._engine.file_spec, self._output)
        if folder is None:
            return self._adopting(self._engine.selection(example, self._source.length, self._run))
        resuming.check_settings(folder.settings, folder.path)
        kept = folder.settings
        tuning = Tuning(kept["batch_size"], kept["sessions"], kept["threads"], "as recorded")
        run = replace(self._run, engine=kept["runner"], batch_size=kept["batch_size"])
        try:
            selection = self._engine.selection(example, self._source.length, run, tuning)
        except FoOnnxError as err:
            raise ResumeError(f"the run was begun with the {kept['runner']} runner, which cannot go on: {err}") from err
        if selection.runners[0].device != kept["device"]:
            raise ResumeError(
                f"the run was begun on {kept['device']}, and would now go on on {selection.runners[0].device}, where rows are "
                f"not the same in every bit. Say device={kept['device']!r}, or begin anew with overwrite=True."
            )
        parity = None if kept["parity"] is None else ParityReport.from_dict(kept["parity"])
        return self._adopting(replace(selection, reason=kept["reason"], parity=selection.parity or parity))

    def _adopting(self, selection: Selection) -> Selection:
        """Gives a model that names no classes the names of the data's, where their order is that of columns."""
        names, spec = self._source.class_names, selection.spec
        if names is None or spec.class_names is not None:
            label_codes(names, spec.class_names)
            return selection
        if not self._source.columns_named or spec.classes != len(names):
            raise DataError(
                f"the labels are names of {len(names)} classes ({', '.join(map(repr, names[:10]))}{', …' if len(names) > 10 else ''}), "
                f"and {spec.name} does not name its {spec.classes}, so that which column is which cannot be told. Say it with "
                "class_names=, in the order of the columns."
            )
        return replace(selection, spec=replace(spec, class_names=names))

    def _identity(self, selection: Selection) -> dict[str, Any]:
        return record.identity(selection, self._source, self._data, self._output, self._run)

    def _require_named_end(self, folder: RunFolder, sink: RunSink) -> None:
        """Where only ``limit=`` says how many rows a resumed run has, they must be there."""
        limit, rows = self._data.limit, sink.written + sink.bad_rows
        if folder.was_resumed and self._source.length is None and limit is not None and rows < limit:
            raise DataError(
                f"the data end after {rows} rows, but limit={limit} says how many the run has, which cannot be told otherwise "
                f"when it goes on. If that is all, say limit={rows}."
            )

    def _pipeline(
        self, selection: Selection, start: int, folder: RunFolder | None = None, inputs: InputDigests | None = None
    ) -> _Shown:
        runners: list[Runner] = list(selection.runners)
        if (
            folder is not None
            and folder.switched_at is not None
            and start >= folder.switched_at
            and selection.native is not None
        ):
            runners = [selection.native()]
        length = self._source.length
        progress = Progress(self._run.progress, length, start)
        return _Shown(
            Pipeline(
                runners,
                self._source,
                batch_size=selection.tuning.batch_size,
                start=start,
                data=self._data,
                run=self._run,
                class_names=selection.spec.class_names,
                class_numbers=selection.spec.framework == "sklearn",
                bad_before=0 if folder is None else sum(folder.counts.values()) - folder.counts["written"],
                batches=None
                if folder is None or inputs is None
                else resuming.digested_batches(self._source, inputs, folder),
                # Asked for ONNX, a failure on the way is an error.
                native=None if self._run.engine == "onnx" else selection.native,
                on_switch=None if folder is None else folder.record_switch,
                progress=progress,
                assumed=self._assumed(selection),
            ),
            progress,
        )

    def _assumed(self, selection: Selection) -> str | None:
        """What the model's output was taken for, where that can turn out to be wrong."""
        kind = selection.spec.output_kind
        return kind if self._output.output == "auto" and kind in PROBABILITY_KINDS else None

    def _meta(
        self, selection: Selection, known: dict[str, Any], outcome: Outcome, folder: RunFolder | None = None
    ) -> dict[str, Any]:
        """The record of the run; of one in a folder, its earlier parts included."""
        if folder is None:
            rows = {"written": outcome.written, "skipped": outcome.bad, "quarantined": 0}
            on_error: list[tuple[int, str]] = [(0, self._data.on_error)]
            switched_at, reason = outcome.switched_at, outcome.reason
        else:
            rows, on_error = folder.counts, folder.journal.on_error
            switched_at, reason = folder.switched_at, folder.switch_reason
        return record.meta(
            selection, self._source, known, outcome, rows=rows, on_error=on_error, switched_at=switched_at, reason=reason,
            user=self._target.meta,
        )  # fmt: skip


class _FirstBatch:
    """A source that ends after its first batch."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self.length = None if source.length is None else min(source.length, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.protocols.Source`."""
        return islice(self._source.batches(size, start), 1)


@dataclass
class _Shown:
    """A pipeline with its bar."""

    pipeline: Pipeline
    progress: Progress

    @property
    def outcome(self) -> Outcome:
        return self.pipeline.outcome

    def execute(self, sink: Sink) -> Outcome:
        with self.progress:
            return self.pipeline.execute(sink)


def _classes(selection: Selection) -> int:
    assert selection.spec.classes is not None
    return selection.spec.classes


def _is_finished(out: Path) -> bool:
    """Whether a whole result is there; an empty folder, or one that a kill left empty, is none."""
    return out.is_file() or (out / MANIFEST).exists()


def _finished_before(out: Path, known: dict[str, Any]) -> Distributions:
    """The finished result of the same run, for a ``resume=True`` that has nothing left to do."""
    result = load(out)
    if not isinstance(result.meta.get("identity"), dict):
        raise StoreExistsError(f"{out} is there already, and holds no record of its run. Choose another name.")
    changed = resuming.changes_in_words(result.meta["identity"], known)
    if changed:
        raise StoreExistsError(
            f"{out} is the finished result of another run: {'; '.join(changed)}. overwrite=True replaces it."
        )
    log.info("%s is finished already", out)
    return result


def _annotate(err: BaseException, text: str) -> None:
    """Adds where the finished rows are to an error's message, and to an interrupt as a note."""
    if isinstance(err, FoOnnxError) and err.args:
        stop = "" if str(err.args[0]).endswith((".", "?", "!")) else "."
        err.args = (f"{err.args[0]}{stop} {text}", *err.args[1:])
    else:
        err.add_note(text)
