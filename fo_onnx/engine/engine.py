"""The engine: one model, kept open over any number of predictions and runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Batch
from ..contracts.batch_plan import BatchPlan
from ..contracts.options import (
    DataOptions,
    DatasetArguments,
    DestinationOptions,
    EngineArguments,
    ModelOptions,
    OutputOptions,
    RunOptions,
    declare_arguments,
    positive_int,
    select_options,
)
from ..contracts.source import Source
from ..contracts.spec import output_classes
from ..control.run_control import begin, current
from ..control.signals import one_interrupt
from ..distributions import Distributions
from ..errors import DataError, FoOnnxError, ResumeError, RunError
from ..models import plugins
from ..models.resolve import ResolvedModel, resolve_model
from ..runtime.devices import cpu_cores
from ..runtime.opened import OpenedModel, open_without_rows
from ..runtime.original_rows import answer_invalid
from ..runtime.request import RunRequest
from ..runtime.tuning import first_rows, held_out_rows, spread_rows
from ..runtime.turns import open_native_model
from ..sources import open_source
from ..store import RunFolder
from . import resume
from .bounded_source import bound_source
from .choose_runner import choose_runner
from .labels import adopt_class_names
from .preview import RunPlan
from .recorded_tuning import with_tuning_of_result
from .run import Run, recorded_runner, reopen_run


@dataclass
class _SharedModel:
    """An opened model. The last user closes it.

    Attributes:
        opened: The model.
        key: What it was opened for.
        users: The calls in progress that use it, and the engine itself until another one has taken its place.
        rows: The rows of all runs that used it.
    """

    opened: OpenedModel
    key: tuple[Any, ...]
    users: int = 1
    rows: int = 0

    def serves(self, key: tuple[Any, ...], rows: int | None) -> bool:
        """Return whether a call may use it: one that was opened for a small job is not for more rows than that, over all calls."""
        most = self.opened.most_rows
        return self.key == key and (most is None or (rows is not None and self.rows + rows <= most))


class Engine:
    """Gives distributions for batches and datasets, with the model opened once.

    A model of a framework is exported, compared and opened with the first rows that come, unless all rows so far are a small
    job; a file is opened at once. If the model changes after that, open another engine.

    For any number of threads: a run ends at its own ``timeout_s`` or interrupt and touches no other, and `close` lets the
    calls in progress end. A model of a framework is called by one of them at a time.

    Example:
        >>> with Engine("digits.onnx") as engine:  # doctest: +SKIP
        ...     probs = engine.predict(images)
        ...     dists = engine.generate(dataset, out="digits.parquet")
    """

    @declare_arguments(EngineArguments)
    def __init__(self, model: Any, **arguments: Unpack[EngineArguments]) -> None:
        """Take a model; see `fo_onnx.generate` for the arguments.

        Raises:
            ModelError: It is no model.
            OptionError: An argument is no valid choice.
        """
        self._model_options = select_options(ModelOptions, arguments)
        self._output = select_options(OutputOptions, arguments)
        self._run = with_tuning_of_result(select_options(RunOptions, arguments))
        with current().calling("the opening of the model"):
            self._resolved = resolve_model(model, self._model_options, self._output)
        self._shared: _SharedModel | None = None
        self._is_closed = False
        self._lock = threading.Lock()  # of the two above, and of what they hold
        self._opening = threading.Lock()
        self._turn = threading.RLock()

    def predict(self, inputs: Any) -> NDArray[np.float32]:
        """Return distributions for some rows.

        Args:
            inputs: An array (n, …), a tuple or a dict of them, or anything else that `generate` takes as data.

        Returns:
            Distributions (n, k), float32.

        Raises:
            DataError: The rows do not fit the model, or one came to no distribution.
        """
        with begin(None):
            return self._predict(inputs)

    def _predict(self, inputs: Any) -> NDArray[np.float32]:
        source = self._open_source(inputs, DataOptions(signature=self._resolved.signature))
        example = first_rows(source)
        if len(example) == 0:
            classes = 0 if self._shared is None else self._shared.opened.classes
            return np.empty((0, classes), np.float32)
        # Planned for any number of rows, since what comes next may be many.
        opened = self._open(source, example, None, self._run)
        parts = []
        for batch in source.batches(opened.plan.batch_size):
            output = opened.runners[0].run(batch.inputs)
            output, bad = answer_invalid(output, batch.inputs, opened.original)
            if len(bad):
                position = batch.start + int(bad[0])
                reason = output.refused.get(int(bad[0]), "its output is no distribution")
                raise DataError(f"row {position}: {reason.rstrip('.')}.", position=position)
            parts.append(output.probs)
        return np.concatenate(parts)

    @declare_arguments(DatasetArguments)
    def generate(self, data: Any, **arguments: Unpack[DatasetArguments]) -> Distributions:
        """Return the distributions of a whole dataset; see `fo_onnx.generate`."""
        with one_interrupt(), begin(arguments.get("timeout_s")), self._run_over(data, arguments) as run:
            return run.execute()

    @declare_arguments(DatasetArguments)
    def plan(self, data: Any, **arguments: Unpack[DatasetArguments]) -> RunPlan:
        """Return what `generate` would do with these arguments: everything is opened, one batch is run, nothing is written.

        Raises:
            FoOnnxError: What `generate` would raise before its first row, or for the rows of the first batch.
            DataError: There are no rows to run.
        """
        with begin(arguments.get("timeout_s")), self._run_over(data, arguments, is_rehearsal=True) as run:
            return run.rehearse()

    def time_batches(self, inputs: Any, batch_sizes: Sequence[int], *, least_s: float = 0.3) -> dict[int, list[float]]:
        """Return the seconds of each run of the model by batch size, on one session over all cores.

        Args:
            inputs: Rows, as `predict` takes them, as many as the largest batch has.
            batch_sizes: Rows per run.
            least_s: How long the runs of a batch size take together; there are at least three, after one that warms up.

        Raises:
            OptionError: A batch size is no number of rows.
            DataError: There are fewer rows than the largest batch has.
        """
        for size in batch_sizes:
            positive_int("batch_sizes", size)
        largest = max(batch_sizes, default=0)
        with begin(None):
            source = self._open_source(inputs, DataOptions(signature=self._resolved.signature))
            example = source.peek(largest)
            if len(example) < largest:
                raise DataError(f"timing batches of {largest} rows: there are {len(example)} rows. Give as many.")
            if largest == 0:
                return {}
            # A plan of its own, so that no run is planned like this.
            plan = BatchPlan(largest, 1, cpu_cores(), True, "timing")
            runner = self._open(source, example, largest, self._run, plan).runners[0]
            timings: dict[int, list[float]] = {}
            for size in batch_sizes:
                batch = source.peek(size).inputs
                runner.run(batch)
                seconds = timings[size] = []
                while len(seconds) < 3 or sum(seconds) < least_s:
                    begun = time.perf_counter()
                    runner.run(batch)
                    seconds.append(time.perf_counter() - begun)
            return timings

    @contextmanager
    def _run_over(self, data: Any, arguments: DatasetArguments, *, is_rehearsal: bool = False) -> Iterator[Run]:
        """Open the data and the model for a run; close the folder that is resumed in the end."""
        run = select_options(RunOptions, {**asdict(self._run), **arguments})
        options = select_options(DataOptions, arguments, signature=self._resolved.signature)
        destination = select_options(DestinationOptions, arguments)
        source = self._open_source(data, options)
        folder = reopen_run(destination, options)
        if run.runner == "auto" and self._resolved.onnx is None and (kind := recorded_runner(destination)) is not None:
            # A finished result is compared with the rows of its own runner.
            run = replace(run, runner=kind)
        try:
            opened = adopt_class_names(self._open_for_run(source, run, folder, is_rehearsal), source)
            yield Run(opened, source, options, run, self._output, destination, folder)
        finally:
            if folder is not None:
                folder.close()

    def _open_source(self, data: Any, options: DataOptions) -> Source:
        self._require_open()
        factories = tuple(plugins.source_factories())
        source = current().bounded(lambda: open_source(data, options, factories), "while the data were opened")
        return bound_source(source)

    def _open_for_run(
        self, source: Source, run: RunOptions, folder: RunFolder | None, is_rehearsal: bool
    ) -> OpenedModel:
        """Open the model for a run, as it was opened for the first part of a run that is resumed."""
        example = first_rows(source)
        if len(example) == 0:
            return open_without_rows(self._count_classes_without_rows(example), self._resolved.spec, self._output)
        if folder is None:
            return self._open(source, example, source.length, run, is_rehearsal=is_rehearsal)
        run, plan = resume.recorded_run(folder, run)
        try:
            opened = self._open(source, example, source.length, run, plan)
        except FoOnnxError as err:
            raise ResumeError(f"the run was begun with the {run.runner} runner, which cannot go on: {err}") from err
        return resume.resumed_model(folder, opened)

    def _open(
        self,
        source: Source,
        example: Batch,
        rows: int | None,
        run: RunOptions,
        recorded_plan: BatchPlan | None = None,
        *,
        is_rehearsal: bool = False,
    ) -> OpenedModel:
        """Open the model with the first rows that come, or return it if it is open.

        It stays open until the call that asks for it is over.

        Raises:
            RunError: The engine is closed.
        """
        key = (run.device, run.runner, run.batch_size, run.precision, recorded_plan)
        with current().holding(self._opening, "while another call opened the model"):
            self._require_open()
            shared = self._shared
            if shared is None or not shared.serves(key, rows):
                earlier_rows = 0 if shared is None or shared.opened.most_rows is None else shared.rows
                self._replace(None)
                resolved, self._resolved = self._resolved, self._resolved.without_graph()
                request = self._make_request(resolved, example, rows, run, recorded_plan)
                request = replace(
                    request,
                    read_spread=lambda: spread_rows(source),
                    read_held_out=lambda: held_out_rows(source, example),
                    assumed_batch=source.assumed_batch,
                    earlier_rows=earlier_rows,
                )
                shared = _SharedModel(choose_runner(request), key)
                self._replace(shared)
            with self._lock:
                self._require_open()
                shared.users += 1
                shared.rows += 0 if is_rehearsal else rows or 0
        current().at_end(lambda: self._release(shared))
        return shared.opened

    def _make_request(
        self, resolved: ResolvedModel, example: Batch, rows: int | None, run: RunOptions, plan: BatchPlan | None = None
    ) -> RunRequest:
        return RunRequest(
            resolved.model,
            resolved.plugin,
            example.inputs,
            rows,
            self._model_options,
            self._output,
            run,
            plan,
            self._turn,
        )

    def _replace(self, new: _SharedModel | None) -> None:
        """Put another model in place of the open one, of which the engine is no longer a user."""
        with self._lock:
            old, self._shared = self._shared, None if self._is_closed else new
            unused = new if self._is_closed else None
        for shared in (old, unused):
            if shared is not None:
                self._release(shared)

    def _release(self, shared: _SharedModel) -> None:
        with self._lock:
            shared.users -= 1
            is_unused = shared.users == 0
        if is_unused:
            shared.opened.close()

    def _count_classes_without_rows(self, example: Batch) -> int:
        """Return the number of classes if there is no row to run: by the file, the names, or an empty batch; else 0."""
        if self._output.class_names is not None:
            return len(self._output.class_names)
        if self._resolved.spec is not None:
            return self._resolved.spec.classes or 0
        if not example.inputs:
            return 0
        try:
            raw = open_native_model(self._make_request(self._resolved, example, 0, self._run)).forward(example.inputs)
            if self._output.output_transform is not None:
                with current().calling("the call of output_transform="):
                    return int(np.shape(self._output.output_transform(raw))[-1])
            return output_classes(raw.shape) or 0
        except RunError:
            # Not every model takes an empty batch, and then the number stays unknown.
            return 0

    def close(self) -> None:
        """Close the sessions, once the calls in progress have ended; it does not wait for them. May be called twice."""
        with self._lock:
            self._is_closed = True
        self._replace(None)

    def _require_open(self) -> None:
        if self._is_closed:
            raise RunError("the engine is closed; open another one.")

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
