"""One run from the first row to the finished file: what is gone on with, recorded, kept and returned."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..distributions import Distributions
from ..errors import DataError, FoOnnxError, OptionError, ResumeError, StoreExistsError
from ..options import DataOptions, OutputOptions, RunOptions
from ..parity import ParityReport
from ..protocols import Runner, Source
from ..spec import PROBABILITY_KINDS
from ..store import MemorySink, RunFolder, differences, load
from . import record
from .pipeline import Outcome, Pipeline, label_codes
from .progress import Progress
from .selection import Selection, empty_selection
from .tuning import Tuning, first_rows

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("fo_onnx.engine")


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
        out = self._target.out
        timeout_s = self._run.timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if out is None:
            if self._data.on_error == "record":
                raise OptionError("on_error='record' writes bad rows down beside the result, so that it needs out=.")
            return self._in_memory()
        folder = RunFolder.reopen(out) if self._target.resume else None
        if folder is None:
            RunFolder.check_target(out, overwrite=self._target.overwrite or self._target.resume)
        try:
            return self._in_folder(out, folder)
        finally:
            if folder is not None:
                folder.close()

    def _in_memory(self) -> Distributions:
        selection = self._select(None)
        known = self._identity(selection)
        sink = MemorySink(
            self._source.length, classes=_classes(selection), id_kind=self._source.id_kind, labels=self._source.has_labels,
            logits=self._output.keep_logits,
        )  # fmt: skip
        pipeline = self._pipeline(selection, sink, 0, None)
        try:
            outcome = pipeline.execute()
        except BaseException as err:
            finished = sink.distributions(
                self._meta(selection, known, pipeline.outcome, pipeline.outcome.written, pipeline.outcome.bad)
            )
            _annotate(err, f"The {len(finished)} finished rows are in this error's attribute `finished`.")
            err.finished = finished  # type: ignore[attr-defined]
            raise
        return sink.distributions(self._meta(selection, known, outcome, outcome.written, outcome.bad))

    def _in_folder(self, out: Path, folder: RunFolder | None) -> Distributions:
        selection = self._select(folder)
        known = self._identity(selection)
        if folder is not None:
            folder.require(known)
        elif self._target.resume and out.exists():
            return _finished_before(out, known)
        else:
            folder = RunFolder.create(out, known, record.settings(selection, known), overwrite=self._target.overwrite)
        with folder:
            sink = folder.sink(
                classes=_classes(selection), id_kind=self._source.id_kind, labels=self._source.has_labels,
                logits=self._output.keep_logits, record_errors=self._data.on_error == "record",
            )  # fmt: skip
            pipeline = self._pipeline(selection, sink, folder.position, folder)
            try:
                outcome = pipeline.execute()
                switched, reason = folder.switched_at, folder.switch_reason
                meta = self._meta(selection, known, outcome, sink.written, sink.bad_rows, switched, reason)
                sink.commit(meta)
            except BaseException as err:
                kept = sink.abort(err)
                if kept is not None:
                    _annotate(
                        err,
                        f"The {sink.written} finished rows are kept in {kept}; resume=True (--resume) goes on from them.",
                    )
                raise
        found = load(out)
        # An .npy file holds the distributions alone; who has just made it need not lose the rest.
        return found if "runner" in found.meta else Distributions.from_rows(found.source, meta)

    def _select(self, folder: RunFolder | None) -> Selection:
        example = first_rows(self._source)
        if len(example) == 0:
            return empty_selection(self._engine.classes_without_rows(example), self._engine.file_spec, self._output)
        if folder is None:
            return self._adopting(self._engine.selection(example, self._source.length, self._run))
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

    def _pipeline(self, selection: Selection, sink: Any, start: int, folder: RunFolder | None) -> _Shown:
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
                sink,
                batch_size=selection.tuning.batch_size,
                start=start,
                data=self._data,
                run=self._run,
                class_names=selection.spec.class_names,
                class_numbers=selection.spec.framework == "sklearn",
                deadline=self._deadline,
                bad_before=sink.bad_rows if folder is not None else 0,
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

    def _meta(self, selection: Selection, known: dict[str, Any], outcome: Outcome, written: int, bad: int,
              switched_at: int | None = None, reason: str | None = None) -> dict[str, Any]:  # fmt: skip
        if outcome.switched_at is not None:
            switched_at, reason = outcome.switched_at, outcome.reason
        return record.meta(
            selection, self._source, known, outcome, data=self._data, run=self._run, written=written, bad=bad,
            switched_at=switched_at, reason=reason, user=self._target.meta,
        )  # fmt: skip


@dataclass
class _Shown:
    """A pipeline with its bar."""

    pipeline: Pipeline
    progress: Progress

    @property
    def outcome(self) -> Outcome:
        return self.pipeline.outcome

    def execute(self) -> Outcome:
        with self.progress:
            return self.pipeline.execute()


def _classes(selection: Selection) -> int:
    assert selection.spec.classes is not None
    return selection.spec.classes


def _finished_before(out: Path, known: dict[str, Any]) -> Distributions:
    """The finished result of the same run, for a ``resume=True`` that has nothing left to do."""
    found = load(out)
    if "identity" not in found.meta:
        raise StoreExistsError(f"{out} is there already, and holds no record of its run; overwrite=True replaces it.")
    changed = differences(found.meta["identity"], known)
    if changed:
        listed = "; ".join(f"{key}: {old!r} then, {new!r} now" for key, (old, new) in changed.items())
        raise StoreExistsError(f"{out} is the finished result of another run ({listed}); overwrite=True replaces it.")
    log.info("%s is finished already", out)
    return found


def _annotate(err: BaseException, text: str) -> None:
    """Adds where the finished rows are to an error's message, and to an interrupt as a note."""
    if isinstance(err, FoOnnxError) and err.args:
        stop = "" if str(err.args[0]).endswith((".", "?", "!")) else "."
        err.args = (f"{err.args[0]}{stop} {text}", *err.args[1:])
    else:
        err.add_note(text)
