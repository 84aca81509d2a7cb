"""Keras models on the TensorFlow backend, and TensorFlow's own, to ONNX.

``tf2onnx.convert.from_keras`` and ``model.export(format="onnx")`` fail on many models of Keras 3; what works is a flat
function that calls the model with ``training=False``.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import tensorflow as tf
from fo_onnx_tfgraph.conversion import write_onnx

from fo_onnx.errors import ExportError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from .native import is_tensor
from .patches import plain_convolutions
from .precision import bookkeeping_kept, computing_in_float32, is_half, retraced
from .programs import Program, program
from .recognition import is_graph_function

_PYTHON_FUNCTION = re.compile(r"\b(Eager)?PyFunc(Stateless)?\b")


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Writes `model` to `path`; see `fo_onnx.protocols.Exporter.export`."""
    run = program(model, list(example), options, output)
    if run.fixed_rows is not None:
        raise ExportError(
            f"{run.who} takes {run.fixed_rows} rows at a time, as its signature says, and files take any number. Leave it open with "
            "None: input_signature=[tf.TensorSpec([None, …])]"
        )
    inputs = run.specs(example)
    free = tuple(_with_free_length(run, i) for i in inputs)
    try:
        written = _write(run, free, path, options.opset)
    except ExportError:
        if free == inputs:
            raise
        # The model's code needs the length; then the example's it is.
        free, written = inputs, _write(run, inputs, path, options.opset)
    return ModelSpec(inputs=free, output=written, name=run.who, framework="keras")


def _write(run: Program, inputs: tuple[TensorSpec, ...], path: Path, opset: int) -> TensorSpec:
    target = _uncompiled(run.model)

    def flat(*tensors: Any) -> Any:
        return run(tensors, is_tensor, target)

    try:
        with contextlib.ExitStack() as stack:
            if run.layers:
                stack.enter_context(plain_convolutions())
                stack.enter_context(bookkeeping_kept(run.model))
                stack.enter_context(computing_in_float32(run.model))
            with run.no_new_weights():
                spec: TensorSpec = write_onnx(flat, inputs, path, opset=opset, who=run.who)
    except ExportError as err:
        if _PYTHON_FUNCTION.search(str(err)) is None:
            raise
        raise ExportError(
            f"{str(err).rstrip('.')}: a Python function within the model (tf.numpy_function, tf.py_function), which no file can hold."
        ) from err
    return spec


def _uncompiled(model: Any) -> Any:
    """What a ``tf.function(jit_compile=True)`` compiles: tf2onnx does not see into functions for XLA.

    What has traces in half precision is traced anew. ``None`` for all else.
    """
    if not is_graph_function(model) or not getattr(model, "_jit_compile", None):
        return retraced(model) if is_half(model) else None
    return tf.function(model.python_function)


def _with_free_length(run: Program, spec: TensorSpec) -> TensorSpec:
    """Token ids of any length, where the model does not say which."""
    declared = dict(zip(run.names, run.declared, strict=True))[spec.name]
    tokens = declared.shape is None and spec.rank == 2 and spec.dtype in ("int32", "int64")
    return TensorSpec(spec.name, spec.dtype, (None, None)) if tokens else spec
