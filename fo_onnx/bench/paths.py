"""The ways to run a model over the same rows: the framework's own, a plain loop over ONNX Runtime, and this package."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs
from ..contracts.exporter import NativePath, OffersNativePaths, RunsRows
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.runner import RawModel
from ..contracts.spec import OutputKind
from ..distributions.probabilities import apply_head
from ..engine import Engine
from ..models.onnx_model import OnnxModel
from ..models.resolve import ResolvedModel
from ..plugin_kit.paths import in_batches
from ..runtime.devices import cpu_cores, placements
from ..runtime.inputs import InputBinder
from ..runtime.session import Session, available_providers
from .result import ENGINE

Probs = NDArray[np.float32]
RunsAll = Callable[[Inputs, int | None], Probs]
"""Runs rows, in batches of a size if the path takes one, and returns their distributions."""
ONNX_RUNTIME = "onnxruntime"


def _describe_nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class RunningPath:
    """A path that is open.

    Attributes:
        run: Runs rows.
        describe: Returns how it ran, as JSON types, if it decides on that itself.
    """

    run: RunsAll
    describe: Callable[[], Mapping[str, Any]] = _describe_nothing


@dataclass(frozen=True)
class BenchPath:
    """One way to run the model.

    Attributes:
        name: What it is called.
        takes_batches: Whether the batch size is chosen for it.
        is_native: Whether it is the framework's own.
        open: Prepares it.
    """

    name: str
    takes_batches: bool
    is_native: bool
    open: Callable[[], contextlib.AbstractContextManager[RunningPath]]


def native_paths(
    resolved: ResolvedModel,
    example: Inputs,
    options: ModelOptions,
    meaning: OutputOptions,
    kind: OutputKind,
    temperature: float,
) -> list[BenchPath]:
    """Return the framework's own ways, at least the plain one; none for a file.

    Args:
        resolved: The model.
        example: Some rows.
        options: How it is opened.
        meaning: Which output is meant.
        kind: What it means.
        temperature: Of the softmax.
    """
    plugin = resolved.plugin
    if plugin is None:
        return []
    if isinstance(plugin, OffersNativePaths):
        paths = plugin.native_paths(resolved.model, example, options, meaning)
    else:
        plain = functools.partial(plugin.native, resolved.model, example, "auto", options, meaning)
        paths = [NativePath(plugin.name, functools.partial(_open_plain, plain))]
    return [
        BenchPath(path.name, True, True, functools.partial(_open_native, path, kind, temperature)) for path in paths
    ]


def onnx_runtime_path(model: OnnxModel, kind: OutputKind, temperature: float, device: str) -> BenchPath:
    """Return a loop as one writes it by hand: one session over all cores, the softmax in numpy."""
    return BenchPath(ONNX_RUNTIME, True, False, functools.partial(_open_session, model, kind, temperature, device))


def engine_path(model: Any, device: str, arguments: Mapping[str, Any], rows_of_long_run: int) -> BenchPath:
    """Return this package's own way with the user's model, which cuts batches itself.

    Args:
        model: The user's.
        device: Where it runs.
        arguments: How it is opened.
        rows_of_long_run: What is chosen by measuring (runner, batches) is chosen for so many rows, since a turn is too short for it.
    """
    open_path = functools.partial(_open_engine, model, device, arguments, rows_of_long_run)
    return BenchPath(ENGINE, False, False, open_path)


@contextlib.contextmanager
def _open_plain(open_model: Callable[[], RawModel]) -> Iterator[RunsRows]:
    model = open_model()
    try:
        yield in_batches(model.forward)
    finally:
        model.close()


@contextlib.contextmanager
def _open_native(path: NativePath, kind: OutputKind, temperature: float) -> Iterator[RunningPath]:
    with path.open() as run:

        def run_all(inputs: Inputs, batch_size: int | None) -> Probs:
            assert batch_size is not None
            return np.asarray(apply_head(run(inputs, batch_size), kind, temperature)[0], np.float32)

        yield RunningPath(run_all)


@contextlib.contextmanager
def _open_session(model: OnnxModel, kind: OutputKind, temperature: float, device: str) -> Iterator[RunningPath]:
    placement = placements(device, "float32", available_providers())[0]
    session = Session(model.path, Path(model.path).parent, placement, cpu_cores(), model.spec.name)
    output, meaning = choose_output(model, kind)
    binder = InputBinder(model.spec)

    def run_all(inputs: Inputs, batch_size: int | None) -> Probs:
        assert batch_size is not None
        parts = [
            apply_head(session.run([output], batch)[0], meaning, temperature)[0]
            for batch in cut_inputs(binder.bind(inputs), batch_size)
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    yield RunningPath(run_all)


@contextlib.contextmanager
def _open_engine(model: Any, device: str, arguments: Mapping[str, Any], rows_of_long_run: int) -> Iterator[RunningPath]:
    with Engine(model, device=device, **arguments) as engine:
        record: dict[str, Any] = {}

        def run_all(inputs: Inputs, batch_size: int | None) -> Probs:
            if not record:
                # The engine keeps what it chooses for its first call.
                count = count_rows(inputs)
                engine.plan(range(rows_of_long_run), input_getter=lambda i: as_data(_row_at(inputs, i % count)))
            dists = engine.generate(as_data(inputs), progress=False)
            record.update(dists.meta["engine"] | dists.meta["runner"])
            return dists.probs

        yield RunningPath(run_all, lambda: dict(record))


def choose_output(model: OnnxModel, kind: OutputKind) -> tuple[str, OutputKind]:
    """Return the output that a loop of one's own reads, and what it means.

    A file of others has no head yet; one of ours without logits gives distributions.
    """
    output = model.logits_output or model.probs_output or model.spec.output.name
    return output, "probs" if output == model.probs_output else kind


def _row_at(inputs: Inputs, index: int) -> Inputs:
    return {name: array[index] for name, array in inputs.items()}


def as_data(inputs: Inputs) -> object:
    """Return inputs as a user gives them: one array, a tuple of them by position, or a dict by name."""
    if all(name.isdecimal() for name in inputs):
        return tuple(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
    return dict(inputs)
