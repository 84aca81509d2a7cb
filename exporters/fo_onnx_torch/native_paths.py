"""The quick ways to run a module in torch, for a benchmark."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.exporter import NativePath, RunsRows
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit.paths import in_batches

from .evaluation import evaluation_mode
from .modules import FlatModule, device_of
from .precision import choose_dtypes
from .tensors import to_numpy, to_tensor


def native_paths(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> list[NativePath]:
    """Return eager execution and ``torch.compile``; see `fo_onnx.contracts.exporter.OffersNativePaths`."""
    module = FlatModule(model, example, options, output)
    dtypes = choose_dtypes(module, example)
    return [
        NativePath(name, functools.partial(_open, module, dtypes, is_compiled=is_compiled))
        for name, is_compiled in (("torch eager", False), ("torch.compile", True))
    ]


def _compile(module: FlatModule) -> Callable[..., Any]:
    with warnings.catch_warnings():
        # Its compiler is imported now, and uses what torch itself calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        compiled: Callable[..., Any] = torch.compile(module)
    return compiled


@contextlib.contextmanager
def _open(module: FlatModule, dtypes: Sequence[torch.dtype], *, is_compiled: bool) -> Iterator[RunsRows]:
    with evaluation_mode(module.model), module.keeper.keep(module.model), torch.inference_mode():
        call = _compile(module) if is_compiled else module
        device = device_of(module)

        def step(batch: Inputs) -> Array:
            tensors = [to_tensor(array, device) for array in module.call.arrays(batch)]
            return to_numpy(call(*(t.to(d) for t, d in zip(tensors, dtypes, strict=True))))

        yield in_batches(step)
