"""Keras models on the TensorFlow backend, and TensorFlow's own, to ONNX.

``tf2onnx.convert.from_keras`` and ``model.export(format="onnx")`` fail on many models of Keras 3; what works is a flat
function that calls the model with ``training=False``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from fo_onnx_tensorflow.export import write_onnx

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import ExportError

from .detect import is_graph_function
from .interface import Declared
from .native import is_tensor, settle_floats
from .patches import patch_convolutions
from .precision import guard_layers, is_half, retrace
from .program import Program, make_program

_PYTHON_FUNCTION = re.compile(r"\b(Eager)?PyFunc(Stateless)?\b")


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path`; see `fo_onnx.contracts.Exporter.export`."""
    program = settle_floats(make_program(model, list(example), options, output), example)
    if program.fixed_rows is not None:
        raise ExportError(
            f"{program.model_name} takes {program.fixed_rows} rows at a time, as its signature says, and files take any number. "
            "Leave it open with None: input_signature=[tf.TensorSpec([None, …])]"
        )
    inputs = program.specs(example)
    free = tuple(map(_with_free_length, inputs, program.declared))
    try:
        output_spec = _write(program, free, path, options.opset)
    except ExportError:
        if free == inputs:
            raise
        # The code of the model needs the length; then it is that of the example.
        free, output_spec = inputs, _write(program, inputs, path, options.opset)
    return ModelSpec(inputs=free, output=output_spec, name=program.model_name, framework="keras")


def _write(program: Program, inputs: tuple[TensorSpec, ...], path: Path, opset: int) -> TensorSpec:
    model, target = program.model, _target(program.model)

    def call_flat(*tensors: Any) -> Any:
        return program(tensors, is_tensor, target)

    try:
        with patch_convolutions(), guard_layers(model, in_float32=True), program.no_new_weights():
            spec: TensorSpec = write_onnx(call_flat, inputs, path, opset=opset, model_name=program.model_name)
    except ExportError as err:
        if _PYTHON_FUNCTION.search(str(err)) is None:
            raise
        raise ExportError(
            f"{str(err).rstrip('.')}: a Python function within the model (tf.numpy_function, tf.py_function), which no file can hold."
        ) from err
    return spec


def _target(model: Any) -> Any:
    """Return what is traced in place of a model, or ``None`` for the model itself.

    tf2onnx does not see into functions for XLA, so a ``tf.function(jit_compile=True)`` is traced without it; what has
    traces in half precision is traced anew.
    """
    if is_graph_function(model) and getattr(model, "_jit_compile", None):
        return tf.function(model.python_function)
    return retrace(model) if is_half(model) else None


def _with_free_length(spec: TensorSpec, declared: Declared) -> TensorSpec:
    """Return the spec of an input; of token ids of any length, if the model does not say which."""
    is_tokens = declared.shape is None and spec.rank == 2 and spec.dtype in ("int32", "int64")
    return TensorSpec(spec.name, spec.dtype, (None, None)) if is_tokens else spec
