"""A model as one flat function: arrays in, in the order of the source's keys, and the array with class scores out.

The export and the native runner both take this function, so that they compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fo_onnx.calls import Call, pick_output
from fo_onnx.errors import FoOnnxError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs
from fo_onnx.spec import TensorSpec

from .evaluation import function_of
from .models import call_of, name_of
from .references import is_array, reachable

RAW_OUTPUT = "output"
_LONGEST = 500


@dataclass(frozen=True, eq=False)
class Flat:
    """A model in evaluation mode as a function of flat arrays.

    Attributes:
        function: The model as a function of its own arguments.
        call: How it takes the arrays.
        float_dtype: The dtype that floating-point inputs are cast to, since all its weights have it; ``None`` where there
            is none.
        output_name: The output that is meant, where it has several.
        who: The model's name.
    """

    function: Callable[..., Any]
    call: Call
    float_dtype: Any
    output_name: str | None
    who: str

    def __call__(self, *arrays: Any) -> Any:
        """The raw output (n, …) for arrays (n, …) in the order of ``call.keys``.

        Raises:
            OutputError: It gives no array, or several.
        """
        return jnp.asarray(pick_output(self.outputs(*arrays), self.output_name, self.who, _is_tensor))

    def outputs(self, *arrays: Any) -> Any:
        """Everything that the model returns for the same arrays."""
        args, kwargs = self.call.arguments([self._cast(jnp.asarray(a)) for a in arrays])
        return self.function(*args, **kwargs)

    def _cast(self, array: Any) -> Any:
        if self.float_dtype is None or not jnp.issubdtype(array.dtype, jnp.floating):
            return array
        return array.astype(self.float_dtype)


def flat(model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> Flat:
    """`model` as a flat function of inputs like `example`.

    Raises:
        ModelError: Its parameters are missing.
    """
    call = call_of(model, list(example))
    dtypes = {np.dtype(w.dtype) for w in weights(model) if jnp.issubdtype(w.dtype, jnp.floating)}
    float_dtype = jax.dtypes.canonicalize_dtype(dtypes.pop()) if len(dtypes) == 1 else None
    return Flat(function_of(model), call, float_dtype, output.output_name, options.model_name or name_of(model))


def weights(model: Any) -> list[Any]:
    """The arrays, of JAX and of numpy, that a model has in its hands."""
    return [v for v in reachable(model) if is_array(v) or (isinstance(v, np.ndarray) and v.dtype != object)]


def input_specs(flat: Flat, example: Mapping[str, Any]) -> list[TensorSpec]:
    """The inputs of a flat function as tensors with a dynamic batch axis, in the dtypes in which JAX takes them.

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


def shapes(specs: Sequence[TensorSpec], rows: int | None) -> list[jax.ShapeDtypeStruct]:
    """Stand-ins for arrays of so many rows, or with ``None`` for single samples without a batch axis."""
    leading = () if rows is None else (rows,)
    return [stand_in((*leading, *(d or 1 for d in s.shape[1:])), s.dtype) for s in specs]


def stand_in(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """What is traced in the place of an array, in the dtype in which JAX takes it."""
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype))  # type: ignore[no-untyped-call]


def first_line(err: BaseException) -> str:
    """What an error says, without the pages that JAX and flax add."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return (lines[0] if lines else "no message")[:_LONGEST].rstrip(".")


def without_notes(err: FoOnnxError) -> None:
    """Takes from an error what JAX adds to all that pass its tracing: that it removed frames from the traceback."""
    notes = getattr(err, "__notes__", None)
    if notes:
        notes[:] = [n for n in notes if "JAX has removed its internal frames" not in n]


def _is_tensor(value: Any) -> bool:
    return is_array(value) or isinstance(value, np.ndarray)
