"""JAX models in JAX: the reference of every comparison, and the runner where ONNX cannot stand in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from fo_onnx.errors import FoOnnxError, OutputError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from . import precision
from .devices import Placement, place
from .functions import RAW_OUTPUT, Flat, first_line, flat, input_specs, shapes, stand_in, weights, without_notes
from .hoisting import hoisted

log = logging.getLogger("fo_onnx_jax")
UNTRACEABLE = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""What JAX raises where Python code looks at values while it is traced (``if x.sum() > 0``, numpy functions)."""


class JaxModel:
    """A JAX model with arrays in and an array out, compiled for each shape of batch."""

    def __init__(
        self,
        function: Callable[..., Any],
        flat: Flat,
        placement: Placement,
        spec: ModelSpec,
        original: JaxModel | None = None,
    ) -> None:
        """Takes a function.

        Args:
            function: The flat function that is run: `flat`, or its like in float32.
            flat: The model as a flat function.
            placement: Where it runs.
            spec: The model.
            original: The model in its own precision, where `function` is of another.
        """
        self.spec, self.device, self.original = spec, placement.name, original
        self._function: Callable[..., Any] | None = function
        self._flat, self._placement = flat, placement
        self._steps: dict[Any, Callable[..., Any]] = {}
        self._placed: dict[int, tuple[Any, Any]] = {}

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """The raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no array, or is a function of single samples.
        """
        arrays = self._flat.call.arrays(inputs)
        rows = len(arrays[0])
        try:
            # A copy, since what numpy sees of a JAX array is read-only.
            found = np.array(self._run(arrays))
        except FoOnnxError as err:
            without_notes(err)
            raise
        except Exception as err:
            given = ", ".join(f"{n}: {a.dtype} {a.shape}" for n, a in zip(self._flat.call.names, arrays, strict=True))
            raise RunError(
                f"running {self.spec.name} in JAX on {given} failed: {type(err).__name__}: {first_line(err)}{self._advice(arrays)}"
            ) from err
        if found.dtype.name == "bfloat16":  # which numpy knows only through JAX
            found = found.astype(np.float32)
        padded = -rows % self._placement.parts
        if found.shape[:1] != (rows + padded,):
            self._require_batched(arrays, found.shape)
        return found[:rows] if padded and found.shape[:1] == (rows + padded,) else found

    def close(self) -> None:
        """Lets the model, its placed weights and what was compiled go."""
        self._function = None
        self._steps.clear()
        self._placed.clear()
        if self.original is not None:
            self.original.close()

    def _run(self, arrays: Sequence[NDArray[Any]]) -> Any:
        if self._function is None:
            raise RunError(f"running {self.spec.name} in JAX: the model is closed.")
        batch = self._placement.cut(arrays)
        # x64 may be switched on and off while the model is held.
        key = (jax.dtypes.canonicalize_dtype(np.float64), *((a.shape, str(a.dtype)) for a in batch))
        if key not in self._steps:
            self._steps[key] = self._compiled(self._function, batch)
        return self._steps[key](*batch)

    def _compiled(self, function: Callable[..., Any], batch: Sequence[Any]) -> Callable[..., Any]:
        """`function` compiled for batches like this one, with its weights as arguments in their places."""
        try:
            step, held = hoisted(function, [stand_in(a.shape, a.dtype) for a in batch])
        except UNTRACEABLE as err:
            log.info("%s cannot be compiled and runs step by step: %s", self.spec.name, first_line(err))
            return lambda *arrays: function(*self._placement.batch(arrays))
        placed = [self._weight(w) for w in held]
        compiled = jax.jit(step)
        if placed and self._placement.parts == 1:
            # The batch follows the weights, and quicker by itself than when it is put beside them.
            return lambda *arrays: compiled(placed, *arrays)
        return lambda *arrays: compiled(placed, *self._placement.batch(arrays))

    def _weight(self, array: Any) -> Any:
        """A weight in its place, put there once for all shapes of batch."""
        if id(array) not in self._placed:
            self._placed[id(array)] = (array, self._placement.weight(array))
        return self._placed[id(array)][1]

    def _advice(self, arrays: Sequence[NDArray[Any]]) -> str:
        """What to say of a model that failed on a batch: it takes one sample instead."""
        shape = self._shape_of(arrays, None)
        if shape is None or len(shape) != 1 or self._shape_of(arrays, len(arrays[0])) is not None:
            return ""
        return f". {_unbatched(shape)}"

    def _require_batched(self, arrays: Sequence[NDArray[Any]], found: tuple[int, ...]) -> None:
        shape = self._shape_of(arrays, None)
        # A model that works on samples and batches gives one axis more for a batch.
        if shape is not None and len(shape) == len(found) == 1:
            raise OutputError(
                f"{self.spec.name} gives an output of shape {found} for {len(arrays[0])} rows; one row per sample was expected. "
                f"{_unbatched(shape)}"
            )

    def _shape_of(self, arrays: Sequence[NDArray[Any]], rows: int | None) -> tuple[int, ...] | None:
        """The shape of the output for so many rows, or for one sample without a batch axis; ``None`` where it fails."""
        specs = input_specs(self._flat, dict(zip(self._flat.call.keys, arrays, strict=True)))
        try:
            found = jax.eval_shape(self._flat, *shapes(specs, rows))
        except Exception as err:
            # Whatever it is: what the model said of the batch is the error that is raised.
            log.debug("%s takes no %s: %s", self.spec.name, "single sample" if rows is None else "such batch", err)
            return None
        return tuple(found.shape)


def _unbatched(shape: tuple[int, ...]) -> str:
    return (
        f"It is not batched: it takes one sample, and gives {shape} for it. Give jax.vmap(model), which takes a batch"
    )


def open_native(model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions) -> JaxModel:
    """`model` as a `JaxModel`, in float32 where it is of half precision; see `fo_onnx.protocols.Exporter.native`.

    Raises:
        ModelError: Its parameters are missing.
        DeviceError: A device is not there.
    """
    function = flat(model, example, options, output)
    placement = place(device, weights(model))
    inputs = tuple(
        TensorSpec(n, str(a.dtype), (None, *a.shape[1:]))
        for n, a in zip(function.call.names, example.values(), strict=True)
    )
    spec = ModelSpec(inputs=inputs, output=TensorSpec(RAW_OUTPUT, "float32", ()), name=function.who, framework="jax")
    if not _is_half(function, example):
        return JaxModel(function, function, placement, spec)
    original = JaxModel(function, function, placement, spec)
    return JaxModel(precision.in_float32(function), function, placement, spec, original)


def _is_half(function: Flat, example: Inputs) -> bool:
    try:
        return precision.uses_half(function, *shapes(input_specs(function, example), 2))
    except Exception as err:
        # A model that cannot be traced, or does not take such rows: which of them is told when it is run.
        log.debug("the precision of %s cannot be told: %s", function.who, err)
        return False
