"""The quick ways to run a model in Keras and TensorFlow, for a benchmark."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.exporter import NativePath, RunsRows
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit.calling import pick_output
from fo_onnx.plugin_kit.paths import in_batches

from .detect import TENSORFLOW, backend_of
from .program import Program, make_program


def native_paths(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> list[NativePath]:
    """Return ``predict``, ``tf.function`` and XLA, as far as the model and its backend have them."""
    program = make_program(model, list(example), options, output)
    paths = []
    if hasattr(model, "predict"):
        paths.append(NativePath("Keras predict", functools.partial(_open_predict, program)))
    if backend_of(model) == TENSORFLOW:
        paths += [
            NativePath(name, functools.partial(_open_function, program, uses_xla=uses_xla))
            for name, uses_xla in (("tf.function", False), ("tf.function, XLA", True))
        ]
    return paths


@contextlib.contextmanager
def _open_predict(program: Program) -> Iterator[RunsRows]:
    def run(inputs: Inputs, batch_size: int) -> Array:
        args, _ = program.arguments(program.arrays(inputs))
        outputs = program.model.predict(args[0], batch_size=batch_size, verbose=0)
        picked: Array = pick_output(
            outputs, program.output_name, program.model_name, lambda value: isinstance(value, np.ndarray)
        )
        return picked

    yield run


@contextlib.contextmanager
def _open_function(program: Program, *, uses_xla: bool) -> Iterator[RunsRows]:
    import tensorflow as tf

    from .native import is_tensor

    # Autograph would see this package's code and not the model's.
    step = tf.function(lambda *tensors: program(tensors, is_tensor), jit_compile=uses_xla, autograph=False)
    yield in_batches(lambda batch: step(*(tf.convert_to_tensor(a) for a in program.arrays(batch))).numpy())
