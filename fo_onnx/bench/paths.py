"""The ways to run a model over the same rows: the framework's own, a plain loop over ONNX Runtime, and this package."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, cut_inputs
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
from ..runtime.session import Session, available_providers
from .result import ENGINE

Probs = NDArray[np.float32]
RunsAll = Callable[[Inputs, int | None], Probs]
"""Runs rows, in batches of a size if the path takes one, and returns their distributions."""
ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class BenchPath:
    """One way to run the model.

    Attributes:
        name: What it is called.
        takes_batches: Whether the batch size is chosen for it.
        open: Prepares it and gives what runs rows.
    """

    name: str
    takes_batches: bool
    open: Callable[[], contextlib.AbstractContextManager[RunsAll]]


def native_paths(
    resolved: ResolvedModel, example: Inputs, options: ModelOptions, kind: OutputKind, temperature: float
) -> list[BenchPath]:
    """Return the framework's own ways, at least the plain one; none for a file.

    Args:
        resolved: The model.
        example: Some rows.
        options: How it is opened.
        kind: What its output means.
        temperature: Of the softmax.
    """
    plugin = resolved.plugin
    if plugin is None:
        return []
    if isinstance(plugin, OffersNativePaths):
        paths = plugin.native_paths(resolved.model, example, options, OutputOptions())
    else:
        plain = functools.partial(plugin.native, resolved.model, example, "auto", options, OutputOptions())
        paths = [NativePath(plugin.name, functools.partial(_open_plain, plain))]
    return [BenchPath(path.name, True, functools.partial(_open_native, path, kind, temperature)) for path in paths]


def onnx_runtime_path(model: OnnxModel, kind: OutputKind, temperature: float) -> BenchPath:
    """Return a loop as one writes it by hand: one session over all cores, the softmax in numpy."""
    return BenchPath(ONNX_RUNTIME, True, functools.partial(_open_session, model, kind, temperature))


def engine_path(model: OnnxModel) -> BenchPath:
    """Return this package's own way, which cuts batches itself."""
    return BenchPath(ENGINE, False, functools.partial(_open_engine, model))


@contextlib.contextmanager
def _open_plain(open_model: Callable[[], RawModel]) -> Iterator[RunsRows]:
    model = open_model()
    try:
        yield in_batches(model.forward)
    finally:
        model.close()


@contextlib.contextmanager
def _open_native(path: NativePath, kind: OutputKind, temperature: float) -> Iterator[RunsAll]:
    with path.open() as run:

        def run_all(inputs: Inputs, batch_size: int | None) -> Probs:
            assert batch_size is not None
            return np.asarray(apply_head(run(inputs, batch_size), kind, temperature)[0], np.float32)

        yield run_all


@contextlib.contextmanager
def _open_session(model: OnnxModel, kind: OutputKind, temperature: float) -> Iterator[RunsAll]:
    placement = placements("cpu", "float32", available_providers())[0]
    session = Session(model.path, Path(model.path).parent, placement, cpu_cores(), model.spec.name)
    # A file of others has no head yet; one of ours without logits gives distributions.
    output = model.logits_output or model.probs_output or model.spec.output.name
    meaning: OutputKind = "probs" if output == model.probs_output else kind
    names = [tensor.name for tensor in model.spec.inputs]
    dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in model.spec.inputs}

    def run_all(inputs: Inputs, batch_size: int | None) -> Probs:
        assert batch_size is not None
        parts = []
        for batch in cut_inputs(dict(zip(names, inputs.values(), strict=True)), batch_size):
            feed = {name: array.astype(dtypes[name], copy=False) for name, array in batch.items()}
            parts.append(apply_head(session.run([output], feed)[0], meaning, temperature)[0])
        return np.concatenate(parts).astype(np.float32, copy=False)

    yield run_all


@contextlib.contextmanager
def _open_engine(model: OnnxModel) -> Iterator[RunsAll]:
    with Engine(model) as engine:
        yield lambda inputs, batch_size: engine.generate(as_data(inputs), progress=False).probs


def as_data(inputs: Inputs) -> object:
    """Return inputs as a user gives them: one array, a tuple of them by position, or a dict by name."""
    if all(name.isdecimal() for name in inputs):
        return tuple(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
    return dict(inputs)
