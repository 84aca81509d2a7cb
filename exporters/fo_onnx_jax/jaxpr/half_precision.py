"""Computations in half precision, reinterpreted in float32.

ONNX Runtime has no bfloat16 kernels on the CPU, tf2onnx 1.17 writes bfloat16 as float16, with another range and rounding,
and float16 is rounded elsewhere in ONNX Runtime than in XLA. A function in bfloat16 or float16 is therefore evaluated with
float32 wherever it has those: the same computation with finer rounding, as the torch exporter does with its
float32 copy of a module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import core

from fo_onnx.errors import ExportError

from .interpreter import Values, bind, evaluate, inner_jaxprs, is_concrete, rewrite

_HALVES = (np.dtype(jnp.bfloat16), np.dtype(np.float16))
_BITS = ("bitcast_convert_type", "random_bits")
_CALLBACKS = ("pure_callback", "io_callback", "debug_callback", "ffi_call")


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with float32 wherever it uses bfloat16 or float16: arguments, constants, inner functions and outputs.

    Raises:
        ExportError: When called, if the function looks at such numbers as bits, or hands them to Python.
    """
    interpret = rewrite(function, _bind_in_float32)

    @functools.wraps(function)
    def lift(*args: Any) -> Any:
        if not uses_half(function, *args):
            return function(*args)
        # An argument that is returned without being computed with is lifted here.
        return jax.tree.map(_as_float32, interpret(*args))

    return lift


def uses_half(function: Callable[..., Any], *example: Any) -> bool:
    """Return whether `function` on arguments like `example` (arrays or ShapeDtypeStructs) has an array of half precision anywhere."""
    closed = jax.make_jaxpr(function)(*example)
    return any(_is_half(aval) for aval in _avals(closed.jaxpr))


def _bind_in_float32(equation: Any, values: Values) -> list[Any]:
    name = equation.primitive.name
    half = any(_is_half(v.aval) for v in (*equation.invars, *equation.outvars))
    if half and name in _BITS + _CALLBACKS:
        what = "as bits" if name in _BITS else "to a Python function"
        raise ExportError(
            f"the model's {name} takes numbers of half precision {what}, which cannot be done in float32; give the model float32 "
            "parameters, or run it natively."
        )
    params = {key: _lift_param(key, value) for key, value in equation.params.items()}
    return [_as_float32(v) for v in bind(equation, [_as_float32(v) for v in values], params)]


def _is_half(value: Any) -> bool:
    return bool(getattr(value, "dtype", None) in _HALVES)


def _as_float32(value: Any) -> Any:
    if not _is_half(value):
        return value
    # Weights are converted at once, so that none in half precision are left for a converter to see.
    return (
        jnp.asarray(np.asarray(value, np.float32))
        if is_concrete(value)
        else jax.lax.convert_element_type(value, np.float32)
    )


def _lift_param(key: str, value: Any) -> Any:
    """Return a parameter of an equation, with float32 for half precision."""
    if isinstance(value, core.ClosedJaxpr):
        return _lift_jaxpr(value)
    if isinstance(value, tuple) and value and all(isinstance(v, core.ClosedJaxpr) for v in value):
        return tuple(map(_lift_jaxpr, value))
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(np.float32) if np.dtype(value) in _HALVES else value
    if key == "precision" and isinstance(value, jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset):
        # Such as BF16_BF16_F32: how halves are to be multiplied.
        return None
    return value


def _lift_jaxpr(closed: Any) -> Any:
    inputs = [a.update(dtype=np.dtype(np.float32)) if _is_half(a) else a for a in closed.in_avals]

    def inner(*args: Any) -> list[Any]:
        return [_as_float32(v) for v in evaluate(closed, args, _bind_in_float32)]

    return jax.make_jaxpr(inner)(*inputs)


def _avals(jaxpr: Any) -> Iterator[Any]:
    """Yield the abstract values of a jaxpr and of all that are inside of it."""
    for variable in (*jaxpr.constvars, *jaxpr.invars):
        yield variable.aval
    for equation in jaxpr.eqns:
        for variable in (*equation.invars, *equation.outvars):
            yield variable.aval
        for inner in inner_jaxprs(equation.params):
            yield from _avals(inner)
