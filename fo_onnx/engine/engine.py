"""The engine: one model, kept open over any number of predictions and runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import plugins
from ..distributions import Distributions
from ..errors import DataError, RunError
from ..options import DataOptions, ModelOptions, OutputOptions, RunOptions
from ..probabilities import invalid_rows
from ..protocols import Batch, Source
from ..run_control import begin, current, is_endless
from ..signals import one_interrupt
from ..sources import open_source
from ..spec import InputSignature, ModelSpec
from .bounded_source import BoundedSource
from .resolve import resolve
from .run import Run, Target
from .select import select
from .selection import Job, Selection
from .tuning import Tuning, first_rows
from .turns import native_in_turn


@dataclass
class _Opened:
    """A selection, and how many calls use it. It is closed by the last of them, once it is no longer the engine's.

    Attributes:
        selection: The runners.
        key: What they were chosen for.
        calls: Calls in progress that use them.
        retired: Whether another one has taken its place, or the engine was closed.
    """

    selection: Selection
    key: tuple[Any, ...]
    calls: int = 0
    retired: bool = False


class Engine:
    """Gives distributions for batches and datasets, with the model opened once.

    A model of a framework is exported, compared and opened with the first rows that come; a file is opened at once.

    For any number of threads: a run ends at its own ``timeout_s`` or interrupt and touches no other, and `close` lets the
    calls in progress end. A model of a framework is called by one of them at a time.

    Example:
        >>> with Engine("digits.onnx") as engine:  # doctest: +SKIP
        ...     probs = engine.predict(images)
        ...     dists = engine.generate(dataset, out="digits.parquet")
    """

    def __init__(
        self,
        model: Any,
        *,
        device: str | Sequence[str] = "auto",
        engine: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        precision: str = "float32",
        framework: str | None = None,
        params: Any = None,
        output: str = "auto",
        output_name: str | None = None,
        temperature: float = 1.0,
        keep_logits: bool = False,
        output_transform: Callable[[Any], Any] | None = None,
        class_names: Sequence[str] | None = None,
        model_name: str | None = None,
        tolerance: float = 1e-4,
        trust: bool = False,
    ) -> None:
        """Takes a model; see `fo_onnx.generate` for the arguments.

        Raises:
            ModelError: It is no model.
            OptionError: An argument is no valid choice.
        """
        self._model_options = ModelOptions(
            framework=framework, params=params, model_name=model_name, tolerance=tolerance, trust=trust
        )
        self._output = OutputOptions(
            output=output, output_name=output_name, temperature=temperature, keep_logits=keep_logits,
            output_transform=output_transform, class_names=class_names,
        )  # fmt: skip
        self._run = RunOptions(device=device, engine=engine, batch_size=batch_size, precision=precision)
        with current().calling("the opening of the model"):
            self._model, self._exporter = resolve(model, self._model_options, self._output)
        self._opened: _Opened | None = None
        self._closed = False
        self._lock = threading.Lock()  # of the two above, and of what they hold
        self._opening = threading.Lock()
        self._turn = threading.RLock()

    def predict(self, inputs: Any) -> NDArray[np.float32]:
        """Distributions for some rows.

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
        source = self.source(inputs, DataOptions(signature=self.signature))
        example = first_rows(source)
        if len(example) == 0:
            opened = self._opened
            classes = None if opened is None else opened.selection.spec.classes
            return np.empty((0, classes or 0), np.float32)
        # Planned for any number of rows, since what comes next may be many.
        selection = self.selection(example, None)
        runner = selection.runners[0]
        parts = []
        for batch in source.batches(selection.tuning.batch_size):
            probs = runner.run(batch.inputs).probs
            bad = invalid_rows(probs)
            if len(bad):
                raise DataError(
                    f"row {batch.start + int(bad[0])}: its output is no distribution.",
                    position=batch.start + int(bad[0]),
                )
            parts.append(probs)
        return np.concatenate(parts)

    def generate(
        self,
        data: Any,
        *,
        labels: Any = None,
        ids: Any = None,
        out: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        input_getter: Callable[[Any], Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        num_workers: int = 0,
        on_error: Literal["fail", "skip", "record"] = "fail",
        max_errors: int | None = None,
        timeout_s: float | None = None,
        limit: int | None = None,
        progress: bool | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Distributions:
        """Distributions of a whole dataset; see `fo_onnx.generate`."""
        run = replace(self._run, max_errors=max_errors, timeout_s=timeout_s, progress=progress)
        options = DataOptions(
            labels=labels, ids=ids, input_getter=input_getter, transform=transform, num_workers=num_workers,
            on_error=on_error, limit=limit, signature=self.signature,
        )  # fmt: skip
        target = Target(None if out is None else Path(out).expanduser(), overwrite, resume, meta)
        with one_interrupt(), begin(timeout_s):
            return Run(self, self.source(data, options), options, run, self._output, target).execute()

    @property
    def signature(self) -> InputSignature | None:
        """The inputs that the model takes, as far as they are known."""
        return self._model.spec.signature if self._exporter is None else self._exporter.signature(self._model)

    @property
    def file_spec(self) -> ModelSpec | None:
        """The spec of an ONNX file; ``None`` for a model of a framework."""
        return self._model.spec if self._exporter is None else None

    def source(self, data: Any, options: DataOptions) -> Source:
        """The rows of `data`."""
        self._require_open()
        factories = tuple(plugins.source_factories())
        opened = current().bounded(lambda: open_source(data, options, factories), "while the data were opened")
        return BoundedSource(opened)

    def selection(
        self, example: Batch, rows: int | None, run: RunOptions | None = None, tuning: Tuning | None = None
    ) -> Selection:
        """The runners, chosen with the first rows that come.

        Args:
            example: The first rows.
            rows: Number of rows, where it is known.
            run: How they are run, where that is not the engine's own.
            tuning: The plan of a run that is gone on with.

        Returns:
            The runners. They stay open until the call that asks for them is over; outside of `predict` and `generate`, until
            the engine is closed or others are chosen.

        Raises:
            RunError: The engine is closed.
        """
        run = run or self._run
        key = (run.engine, run.batch_size, tuning)
        with current().holding(self._opening, "while another call opened the model"):
            self._require_open()
            opened = self._opened
            if opened is None or opened.key != key:
                job = Job(
                    self._model, self._exporter, example.inputs, rows, self._model_options, self._output, run, tuning,
                    self._turn,
                )  # fmt: skip
                self._replace(None)
                opened = _Opened(select(job), key)
                self._replace(opened)
            with self._lock:
                if opened.retired:
                    self._require_open()
                opened.calls += 1
        if is_endless(current()):
            self._release(opened)
        else:
            current().at_end(lambda: self._release(opened))
        return opened.selection

    def _replace(self, new: _Opened | None) -> None:
        """Puts another selection in the place of the engine's; the old one is closed now, or by the last call that uses it."""
        with self._lock:
            old, self._opened = self._opened, None if self._closed else new
            retired = [o for o in (old, new if self._closed else None) if o is not None]
            for opened in retired:
                opened.retired = True
            unused = [o for o in retired if o.calls == 0]
        for opened in unused:
            opened.selection.close()

    def _release(self, opened: _Opened) -> None:
        with self._lock:
            opened.calls -= 1
            unused = opened.retired and opened.calls == 0
        if unused:
            opened.selection.close()

    def classes_without_rows(self, example: Batch) -> int:
        """The number of classes where there is no row to run: from the file, the names, or an empty batch; else 0."""
        if self._output.class_names is not None:
            return len(self._output.class_names)
        if self._exporter is None:
            return self._model.spec.classes or 0
        if not example.inputs:
            return 0
        try:
            raw = native_in_turn(
                self._exporter, self._model, example.inputs, "auto", self._model_options, self._output, self._turn
            )
            found = raw.forward(example.inputs)
            if self._output.output_transform is not None:
                with current().calling("the call of output_transform="):
                    return int(np.shape(self._output.output_transform(found))[-1])
            return 2 if found.ndim == 1 or found.shape[-1] == 1 else int(found.shape[-1])
        except RunError:
            # Not every model takes an empty batch, and then nothing tells.
            return 0

    def close(self) -> None:
        """Closes the sessions, once the calls in progress have ended; it does not wait for them. May be called twice."""
        with self._lock:
            self._closed = True
        self._replace(None)

    def _require_open(self) -> None:
        if self._closed:
            raise RunError("the engine is closed; open another one.")

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
