"""The way to run an estimator in scikit-learn, for a benchmark."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import NativePath, RunsRows
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit.paths import in_batches

from .native import open_native


def native_paths(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> list[NativePath]:
    """Return ``predict_proba``; see `fo_onnx.contracts.exporter.OffersNativePaths`."""
    return [NativePath("predict_proba", functools.partial(_open, model, example, options, output))]


@contextlib.contextmanager
def _open(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> Iterator[RunsRows]:
    opened = open_native(model, example, "auto", options, output)
    try:
        yield in_batches(opened.forward)
    finally:
        opened.close()
