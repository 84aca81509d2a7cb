"""The quick way to run a model in JAX, for a benchmark."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import NativePath, RunsRows
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit.paths import in_batches

from .flat_function import FlatFunction, flatten


def native_paths(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> list[NativePath]:
    """Return ``jax.jit``; see `fo_onnx.contracts.exporter.OffersNativePaths`."""
    return [NativePath("jax.jit", functools.partial(_open, flatten(model, example, options, output)))]


@contextlib.contextmanager
def _open(function: FlatFunction) -> Iterator[RunsRows]:
    compiled = jax.jit(function)
    # Batches are dispatched one after another, and awaited when their numbers are asked for.
    yield in_batches(lambda batch: compiled(*function.call.arrays(batch)))
