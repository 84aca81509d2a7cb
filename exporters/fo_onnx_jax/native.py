"""JAX models in JAX: the reference of every comparison, and the runner of models that ONNX cannot take over."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import FoOnnxError, OutputError, RunError, first_line

from .devices import ArrayPlacement, place
from .flat_function import RAW_OUTPUT, FlatFunction, abstract_array, attempt_trace, flatten, remove_jax_notes
from .jaxpr import half_precision
from .jaxpr.weight_arguments import split_weights
from .references import find_weights

log = logging.getLogger("fo_onnx_jax")
_UNTRACEABLE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""Errors of JAX for Python code that looks at values while it is traced (``if x.sum() > 0``, numpy functions)."""


class JaxModel:
    """A JAX model with arrays in and an array out, compiled for each shape of batch."""

    def __init__(
        self,
        function: Callable[..., Any],
        flat: FlatFunction,
        placement: ArrayPlacement,
        spec: ModelSpec,
        original: JaxModel | None = None,
    ) -> None:
        """Take the model as a flat function, and the one that runs: `flat` itself, or the same in float32."""
        self.spec, self.device, self.original = spec, placement.name, original
        self._function: Callable[..., Any] | None = function
        self._flat, self._placement = flat, placement
        self._steps: dict[Any, Callable[..., Any]] = {}
        self._placed: dict[int, tuple[Any, Any]] = {}

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """Return the raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no array, or is a function of single samples.
        """
        arrays = self._flat.call.arrays(inputs)
        rows = len(arrays[0])
        try:
            # A copy, since what numpy sees of a JAX array is read-only.
            output = np.array(self._run(arrays))
        except FoOnnxError as err:
            remove_jax_notes(err)
            raise
        except Exception as err:
            shapes = ", ".join(f"{n}: {a.dtype} {a.shape}" for n, a in zip(self._flat.call.names, arrays, strict=True))
            raise RunError(
                f"running {self.spec.name} in JAX on {shapes} failed: {first_line(err)}{self._advise(err, arrays)}"
            ) from err
        if output.dtype.name == "bfloat16":  # which numpy knows only through JAX
            output = output.astype(np.float32)
        # Of rows that were added to cut the batch into equal parts, the output is left out.
        padded_rows = rows + -rows % self._placement.parts
        if output.shape[:1] == (padded_rows,):
            return output[:rows]
        # A model that works on samples and batches gives one axis more for a batch.
        advice = self._advise_vmap(arrays) if output.ndim == 1 else ""
        if advice:
            raise OutputError(
                f"{self.spec.name} gives an output of shape {output.shape} for {rows} rows; one row per sample was expected{advice}"
            )
        return output

    def close(self) -> None:
        """Let the model, its placed weights and what was compiled go."""
        self._function = None
        self._steps.clear()
        self._placed.clear()
        if self.original is not None:
            self.original.close()

    def _run(self, arrays: Sequence[NDArray[Any]]) -> Any:
        if self._function is None:
            raise RunError(f"running {self.spec.name} in JAX: the model is closed.")
        batch = self._placement.pad(arrays)
        # One program for each shape; the user may switch x64 on and off while the model is open.
        key = (jax.dtypes.canonicalize_dtype(np.float64), *((a.shape, str(a.dtype)) for a in batch))
        if key not in self._steps:
            self._steps[key] = self._compile(self._function, batch)
        return self._steps[key](*batch)

    def _compile(self, function: Callable[..., Any], batch: Sequence[Any]) -> Callable[..., Any]:
        """Return `function` compiled for batches like this one, with its weights as arguments in their places."""
        try:
            step, weights = split_weights(function, [abstract_array(a.shape, a.dtype) for a in batch])
        except _UNTRACEABLE as err:
            log.info("%s cannot be compiled and runs step by step: %s", self.spec.name, first_line(err))
            return lambda *arrays: function(*self._placement.place_batch(arrays))
        placed = [self._place_weight(w) for w in weights]
        compiled = jax.jit(step)
        if placed and self._placement.parts == 1:
            # The batch follows the weights, and more quickly than if it is put on their device first.
            return lambda *arrays: compiled(placed, *arrays)
        return lambda *arrays: compiled(placed, *self._placement.place_batch(arrays))

    def _place_weight(self, array: Any) -> Any:
        """Return a weight in its place, put there once for all shapes of batch."""
        if id(array) not in self._placed:
            self._placed[id(array)] = (array, self._placement.place_weight(array))
        return self._placed[id(array)][1]

    def _advise(self, err: Exception, arrays: Sequence[NDArray[Any]]) -> str:
        """Return what to do about a model that failed on a batch, if that is known: it takes one sample, or is stateful."""
        if type(err).__name__ == "TraceContextError":
            return (
                ". A function around an nnx module may not change it (random numbers that it counts). Give the module itself, "
                "or under jax.jit or jax.vmap; or nnx.split it and merge a copy within the function"
            )
        return self._advise_vmap(arrays) if self._output_shape(arrays, len(arrays[0])) is None else ""

    def _advise_vmap(self, arrays: Sequence[NDArray[Any]]) -> str:
        """Return what to do about a model that takes one sample; nothing for others."""
        shape = self._output_shape(arrays, None)
        if shape is None or len(shape) != 1:
            return ""
        return f". It is not batched: it takes one sample, and gives {shape} for it. Give jax.vmap(model), which takes a batch"

    def _output_shape(self, arrays: Sequence[NDArray[Any]], rows: int | None) -> tuple[int, ...] | None:
        """Return the shape of the output for so many rows, or for one sample without a batch axis; ``None`` if it fails."""
        example = dict(zip(self._flat.call.keys, arrays, strict=True))
        output = attempt_trace(functools.partial(jax.eval_shape, self._flat), self._flat, example, rows)
        return None if output is None else tuple(output.shape)


def open_native(model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions) -> JaxModel:
    """Return `model` as a `JaxModel`, in float32 if it is of half precision; see `fo_onnx.contracts.Exporter.native`.

    Raises:
        ModelError: Its parameters are missing, or it holds a module in training mode.
        DeviceError: A device is not there.
    """
    function = flatten(model, example, options, output)
    # "auto" is where the weights are.
    placement = place(device, find_weights(model))
    inputs = tuple(
        TensorSpec(n, str(a.dtype), (None, *a.shape[1:]))
        for n, a in zip(function.call.names, example.values(), strict=True)
    )
    output_spec = TensorSpec(RAW_OUTPUT, "float32", ())
    spec = ModelSpec(inputs=inputs, output=output_spec, name=function.model_name, framework="jax")
    original = JaxModel(function, function, placement, spec)
    # Half precision is compared and run in float32; the gap to the original is reported.
    if not attempt_trace(functools.partial(half_precision.uses_half, function), function, example):
        return original
    return JaxModel(half_precision.in_float32(function), function, placement, spec, original)
