"""The engine: one model, kept open over any number of predictions and runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from ..sources import open_source
from ..spec import InputSignature, ModelSpec
from .pool import Interruptible
from .resolve import resolve
from .run import Run, Target
from .select import select
from .selection import Job, Selection
from .tuning import Tuning, first_rows


class Engine:
    """Gives distributions for batches and datasets, with the model opened once.

    A model of a framework is exported, compared and opened with the first rows that come; a file is opened at once.

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
        self._model, self._exporter = resolve(model, self._model_options, self._output)
        self._selection: Selection | None = None
        self._key: tuple[Any, ...] = ()
        self._closed = False

    def predict(self, inputs: Any) -> NDArray[np.float32]:
        """Distributions for some rows.

        Args:
            inputs: An array (n, …), a tuple or a dict of them, or anything else that `generate` takes as data.

        Returns:
            Distributions (n, k), float32.

        Raises:
            DataError: The rows do not fit the model, or one came to no distribution.
        """
        source = self.source(inputs, DataOptions(signature=self.signature))
        example = first_rows(source)
        if len(example) == 0:
            classes = None if self._selection is None else self._selection.spec.classes
            return np.empty((0, classes or 0), np.float32)
        # Planned for any number of rows, since what comes next may be many.
        selection = self.selection(example, None)
        runner = selection.runners[0]
        if isinstance(runner, Interruptible):
            runner.reset()
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
        return open_source(data, options, tuple(plugins.source_factories()))

    def selection(
        self, example: Batch, rows: int | None, run: RunOptions | None = None, tuning: Tuning | None = None
    ) -> Selection:
        """The runners, chosen with the first rows that come.

        Args:
            example: The first rows.
            rows: Number of rows, where it is known.
            run: How they are run, where that is not the engine's own.
            tuning: The plan of a run that is gone on with.
        """
        self._require_open()
        run = run or self._run
        key = (run.engine, run.batch_size, tuning)
        if self._selection is not None and self._key != key:
            self._selection.close()
            self._selection = None
        if self._selection is None:
            job = Job(self._model, self._exporter, example.inputs, rows, self._model_options, self._output, run, tuning)
            self._selection, self._key = select(job), key
        return self._selection

    def classes_without_rows(self, example: Batch) -> int:
        """The number of classes where there is no row to run: from the file, the names, or an empty batch; else 0."""
        if self._output.class_names is not None:
            return len(self._output.class_names)
        if self._exporter is None:
            return self._model.spec.classes or 0
        if not example.inputs:
            return 0
        try:
            raw = self._exporter.native(self._model, example.inputs, "auto", self._model_options, self._output)
            found = raw.forward(example.inputs)
            if self._output.output_transform is not None:
                return int(np.shape(self._output.output_transform(found))[-1])
            return 2 if found.ndim == 1 or found.shape[-1] == 1 else int(found.shape[-1])
        except RunError:
            # Not every model takes an empty batch, and then nothing tells.
            return 0

    def close(self) -> None:
        """Closes the sessions. May be called twice."""
        if self._selection is not None:
            self._selection.close()
            self._selection = None
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise RunError("the engine is closed; open another one.")

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
