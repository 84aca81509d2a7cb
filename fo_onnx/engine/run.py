"""One run from the first row to the finished file: what is resumed, recorded and returned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ..contracts.batch import Batch
from ..contracts.options import DataOptions, DestinationOptions, OutputOptions, RunOptions
from ..contracts.source import Source
from ..control.run_control import TimeUp
from ..control.signals import signals_deferred
from ..distributions import Distributions
from ..distributions.columns import Columns
from ..errors import (
    DataError,
    FoOnnxError,
    OptionError,
    ParityError,
    ResumeError,
    StoreExistsError,
    append_sentence,
)
from ..runtime.opened import OpenedModel
from ..runtime.tuning import first_rows
from ..store import MANIFEST, InputDigests, MemorySink, RunFolder, RunSink, load
from . import finished_rows, metadata, resume
from .bounded_source import read_bounded
from .labels import LabelMapper
from .pipeline import Pipeline, RunStats
from .preview import RunPlan, plan_run
from .rerun_rows import describe_other_rows, first_batches

log = logging.getLogger("fo_onnx.engine")


def reopen_run(destination: DestinationOptions, data: DataOptions) -> RunFolder | None:
    """Return the unfinished run that is resumed, if there is one; else check that the destination may be written.

    Raises:
        OptionError: Bad rows are to be recorded, and there is no file that they could be recorded beside.
        StoreError: What is there is no run, or may not be replaced.
        ResumeError: The run was ended since its export differs from the model.
    """
    out, records_bad_rows = destination.out, data.on_error == "record"
    if out is None:
        if records_bad_rows:
            raise OptionError("on_error='record' writes bad rows down beside the result, so that it needs out=.")
        return None
    if records_bad_rows:
        RunFolder.check_place_of_bad_rows(out)
    folder = RunFolder.reopen(out) if destination.resume else None
    if folder is not None and folder.difference is not None:
        folder.close()
        raise ResumeError(
            f"Resuming {folder.path}: the run was ended, and its finished rows came from the same export. {folder.difference} Say "
            "overwrite=True (--overwrite) with it."
        )
    if folder is None:
        RunFolder.check_target(out, overwrite=destination.overwrite or destination.resume)
    return folder


def _is_finished(destination: DestinationOptions) -> bool:
    """Return whether a whole result is to be resumed; an empty folder, or one that a kill left empty, is none."""
    out = destination.out
    return destination.resume and out is not None and (out.is_file() or (out / MANIFEST).exists())


def recorded_runner(destination: DestinationOptions) -> str | None:
    """Return the runner of a finished result that is to be resumed; ``None`` if there is none, or it does not say."""
    if destination.out is None or not _is_finished(destination):
        return None
    record = load(destination.out).meta.get("runner")
    kind = record.get("kind") if isinstance(record, dict) else None
    return kind if kind in ("onnx", "native") else None


class Run:
    """A run of an opened model over a source."""

    def __init__(
        self,
        opened: OpenedModel,
        source: Source,
        data: DataOptions,
        run: RunOptions,
        output: OutputOptions,
        destination: DestinationOptions,
        folder: RunFolder | None,
    ) -> None:
        """Take what was chosen; `folder` is the unfinished run that is resumed, if one is."""
        self._opened, self._source, self._destination, self._folder = opened, source, destination, folder
        self._data, self._run, self._output = data, run, output
        self._labels = LabelMapper(source, opened.spec, order_stated=output.class_names is not None)
        self._labels.check(source)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        # It reads rows of the source, and a rehearsal may do without it.
        return metadata.identity(self._opened, self._source, self._data, self._output, self._run)

    def execute(self) -> Distributions:
        """Run every row that is not there yet.

        Raises:
            FoOnnxError: Something failed. What was finished is kept: in ``<name>.partial`` beside `out`, else as the
                error's attribute ``finished``.
        """
        out, folder = self._destination.out, self._folder
        identity = self._identity  # before the first row is run
        if out is None:
            return self._run_in_memory()
        if folder is not None:
            resume.require_same_run(folder, self._identity, self._source, self._data.limit)
        elif _is_finished(self._destination):
            return self._load_finished(out)
        else:
            settings = metadata.settings(self._opened, identity)
            folder = RunFolder.create(out, identity, settings, overwrite=self._destination.overwrite)
        self._run_in_folder(folder)
        return load(out)

    def rehearse(self) -> RunPlan:
        """Do what `execute` does before its first row, run the first batch into memory, and plan the rest.

        Raises:
            FoOnnxError: What `execute` would raise before its first row, or for the rows of its first batch.
            DataError: There are no rows to run.
        """
        if len(first_rows(self._source)) == 0:
            raise DataError("planning the run: the data hold no row that could be run.")
        folder = self._folder
        if folder is not None:
            resume.require_same_run(folder, self._identity, self._source, self._data.limit)
            self._require_same_beginning(folder)
        elif _is_finished(self._destination):
            assert self._destination.out is not None
            self._load_finished(self._destination.out)
        source = _FirstBatch(self._source, self._opened.plan.batch_size)
        # If bad rows would be recorded, they are left out here.
        data = replace(self._data, on_error="skip") if self._data.on_error == "record" else self._data
        quiet = replace(self._run, progress=False)
        first = Pipeline(self._opened, source, self._labels, data, quiet, self._output)
        first.execute(MemorySink(source.length, **self._layout()))
        return plan_run(self._opened, self._source, self._destination.out, keep_logits=self._output.keep_logits)

    def _run_in_memory(self) -> Distributions:
        sink = MemorySink(self._source.length, **self._layout())
        pipeline = Pipeline(self._opened, self._source, self._labels, self._data, self._run, self._output)
        try:
            stats = pipeline.execute(sink)
        except BaseException as err:
            with signals_deferred(err):
                finished = sink.distributions(self._meta(pipeline.stats))
                _annotate(err, f"The {len(finished)} finished rows are in this error's attribute `finished`.")
                err.finished = finished  # type: ignore[attr-defined]
            raise
        return sink.distributions(self._meta(stats))

    def _run_in_folder(self, folder: RunFolder) -> None:
        with folder:
            self._require_same_beginning(folder)
            inputs = InputDigests()
            read_batches = finished_rows.digested_batches(self._source, inputs, folder)
            pipeline = Pipeline(
                self._opened, self._source, self._labels, self._data, self._run, self._output, folder, read_batches
            )
            sink = folder.sink(**self._layout(), on_error=self._data.on_error, inputs=inputs)
            try:
                stats = pipeline.execute(sink)
                self._require_known_end(folder, sink)
                with signals_deferred():
                    sink.finish_shard()
                    sink.commit(self._meta(stats, folder))
            except BaseException as err:
                with signals_deferred(err):
                    place = sink.abort(err)
                    if place is None and isinstance(err, TimeUp):
                        _annotate(err, "No row was finished.")
                    elif place is not None and isinstance(err, ParityError):
                        _annotate(err, f"The {sink.written} finished rows, of the same export, are kept in {place}.")
                    elif place is not None:
                        _annotate(
                            err,
                            f"The {sink.written} finished rows are kept in {place}; resume=True (--resume) continues from them.",
                        )
                raise

    def _require_same_beginning(self, folder: RunFolder) -> None:
        """Raise a `ResumeError` if the data or the model are not those of the rows that are finished."""
        if folder.position:
            first = read_bounded(first_batches, self._source, self._opened.plan.batch_size)
            read_bounded(finished_rows.require_same_rows, folder, self._source, first, self._labels.map)
            resume.require_same_model(folder, self._opened, first)

    def _layout(self) -> dict[str, Any]:
        return {
            "classes": self._opened.classes,
            "id_kind": self._source.id_kind,
            "labels": self._source.has_labels,
            "logits": self._output.keep_logits,
        }

    def _require_known_end(self, folder: RunFolder, sink: RunSink) -> None:
        """Raise a `DataError` if only ``limit=`` says how many rows a resumed run has, and they are not there."""
        limit, rows = self._data.limit, sink.written + sink.bad_rows
        if folder.was_resumed and self._source.length is None and limit is not None and rows < limit:
            raise DataError(
                f"the data end after {rows} rows, but limit={limit} says how many the run has, which cannot be known otherwise "
                f"when it is resumed. If that is all, say limit={rows}."
            )

    def _load_finished(self, out: Path) -> Distributions:
        """Load the finished result of the same run: there is nothing left to do."""
        result = load(out)
        if not isinstance(result.meta.get("identity"), dict):
            raise StoreExistsError(f"{out} is there already, and holds no record of its run. Choose another name.")
        changes = resume.changes_in_words(result.meta["identity"], self._identity)
        if not changes:
            first = read_bounded(first_batches, self._source, self._opened.plan.batch_size)
            changes = read_bounded(finished_rows.find_changed_rows, result, self._source, first, self._labels.map)
            if not changes and (difference := self._describe_other_rows(result, first)) is not None:
                changes = [f"the model gives other rows: {difference}"]
        if changes:
            raise StoreExistsError(
                f"{out} is the finished result of another run: {'; '.join(changes)}. overwrite=True replaces it."
            )
        log.info("%s is finished already", out)
        return result

    def _describe_other_rows(self, result: Distributions, first: Batch) -> str | None:
        """Return how the model's rows differ from those of a finished result that came about in the same way."""
        opened, plan = self._opened, self._opened.plan
        now = {
            "kind": opened.runners[0].kind, "device": opened.runners[0].device, "batch_size": plan.batch_size,
            "precision": opened.precision_name,
        }  # fmt: skip
        then = {**(result.meta.get("runner") or {}), **(result.meta.get("engine") or {})}
        if then.get("switched_at") is not None or any(then.get(key) != value for key, value in now.items()):
            return None
        rows = result.slice(0, len(first))
        return describe_other_rows(opened, opened.runners, first, Columns(ids=rows.ids, probs=rows.probs))

    def _meta(self, stats: RunStats, folder: RunFolder | None = None) -> dict[str, Any]:
        """Return the record of the run; of one in a folder, its earlier parts included."""
        return metadata.meta(
            self._opened, self._source, self._identity, stats, self._data, self._destination.meta, folder
        )


class _FirstBatch:
    """A source that ends after its first batch."""

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self.length = None if source.length is None else min(source.length, size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """See `fo_onnx.contracts.Source`."""
        return islice(self._source.batches(size, start), 1)


def _annotate(err: BaseException, text: str) -> None:
    """Add where the finished rows are to an error's message, and to an interrupt as a note."""
    if isinstance(err, FoOnnxError) and err.args:
        err.args = (append_sentence(err.args[0], text), *err.args[1:])
    else:
        err.add_note(text)
