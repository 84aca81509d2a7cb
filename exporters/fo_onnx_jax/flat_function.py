"""A model as one flat function: arrays in, in the order of the source's keys, and the array with class scores out.

The export and the native runner both take this function, so that they compute the same.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import FoOnnxError, first_line
from fo_onnx.plugin_kit.calling import Call, pick_output

from .detect import name_of
from .evaluation import function_of
from .references import find_weights, is_array
from .signature import call_of

log = logging.getLogger("fo_onnx_jax")
RAW_OUTPUT = "output"


@dataclass(frozen=True, eq=False)
class FlatFunction:
    """A model in evaluation mode as a function of flat arrays.

    Attributes:
        function: The model as a function of its own arguments.
        call: How it takes the arrays.
        float_dtype: The dtype that floating-point inputs are cast to, since all its weights have it; ``None`` if there is
            none.
        output_name: The output with the class scores, if it has several.
        model_name: The model's name.
    """

    function: Callable[..., Any]
    call: Call
    float_dtype: Any
    output_name: str | None
    model_name: str

    def __call__(self, *arrays: Any) -> Any:
        """Return the raw output (n, …) for arrays (n, …) in the order of ``call.keys``.

        Raises:
            OutputError: It gives no array, or several.
        """
        return jnp.asarray(pick_output(self.all_outputs(*arrays), self.output_name, self.model_name, _is_tensor))

    def all_outputs(self, *arrays: Any) -> Any:
        """Return everything that the model returns for the same arrays."""
        args, kwargs = self.call.arguments([self._cast(jnp.asarray(a)) for a in arrays])
        return self.function(*args, **kwargs)

    def _cast(self, array: Any) -> Any:
        if self.float_dtype is None or not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        return array.astype(self.float_dtype)


def flatten(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> FlatFunction:
    """Return `model` as a flat function of inputs like `example`.

    Raises:
        ModelError: Its parameters are missing, or it holds a module in training mode.
    """
    # Layers of one dtype may refuse rows of another.
    dtypes = {np.dtype(w.dtype) for w in find_weights(model) if jnp.issubdtype(w.dtype, jnp.floating)}
    float_dtype = jax.dtypes.canonicalize_dtype(dtypes.pop()) if len(dtypes) == 1 else None
    function, model_name = function_of(model), options.model_name or name_of(model)

    def flatten_by(call: Call) -> FlatFunction:
        return FlatFunction(function, call, float_dtype, output.output_name, model_name)

    def runs(call: Call) -> bool:
        flat = flatten_by(call)
        try:
            flat(*(array[:2] for array in call.arrays(example)))
        except Exception as err:
            log.debug("%s takes no %s: %s", model_name, call.form, first_line(err))
            return False
        return True

    flat = flatten_by(call_of(model, list(example), runs))
    return replace(flat, float_dtype=None) if _takes_float64(flat, example) else flat


def _takes_float64(flat: FlatFunction, example: Inputs) -> bool:
    """Return whether rows of float64 reach a model of float32 weights as they are, as with ``jax_enable_x64`` they may."""
    is_wide = jax.dtypes.canonicalize_dtype(np.float64) == np.float64 and any(
        a.dtype == np.float64 for a in example.values()
    )
    as_given = replace(flat, float_dtype=None)
    evaluate = functools.partial(jax.eval_shape, as_given)
    return is_wide and flat.float_dtype == np.float32 and attempt_trace(evaluate, as_given, example) is not None


def input_specs(flat: FlatFunction, example: Mapping[str, Any]) -> list[TensorSpec]:
    """Return the inputs of a flat function as tensors with a dynamic batch axis, in the dtypes in which JAX takes them.

    Without ``jax_enable_x64`` JAX counts in 32 bits, so that int64 data become int32. Halves are asked for as float32, as
    data come; the function casts them.
    """
    specs = []
    for name, array in zip(flat.call.names, flat.call.arrays(example), strict=True):
        dtype = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype))
        if flat.float_dtype is not None and dtype.kind == "f":
            dtype = np.dtype(np.float64 if flat.float_dtype == np.float64 else np.float32)
        specs.append(TensorSpec(name, dtype.name, (None, *array.shape[1:])))
    return specs


def attempt_trace(
    trace: Callable[..., Any], flat: FlatFunction, example: Mapping[str, Any], rows: int | None = 2
) -> Any:
    """Return what ``trace(*abstract_arrays)`` gives for rows like those of `example`; ``None`` if it fails.

    Whatever keeps the model from being traced is what its run or its export reports.
    """
    try:
        return trace(*abstract_inputs(input_specs(flat, example), rows))
    except Exception as err:
        log.debug("%s cannot be traced for %s rows: %s", flat.model_name, rows, err)
        return None


def abstract_inputs(specs: Sequence[TensorSpec], rows: int | None) -> list[jax.ShapeDtypeStruct]:
    """Return abstract arrays of so many rows, or with ``None`` of single samples without a batch axis."""
    batch = () if rows is None else (rows,)
    return [abstract_array((*batch, *(int(d or 1) for d in s.shape[1:])), s.dtype) for s in specs]


def abstract_array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """Return what is traced in place of an array, in the dtype in which JAX takes it."""
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype))  # type: ignore[no-untyped-call]


def remove_jax_notes(err: FoOnnxError) -> None:
    """Take from an error what JAX adds to all that pass its tracing: that it removed frames from the traceback."""
    notes = getattr(err, "__notes__", None)
    if notes:
        notes[:] = [n for n in notes if "JAX has removed its internal frames" not in n]


def _is_tensor(value: Any) -> bool:
    return is_array(value) or isinstance(value, np.ndarray)
