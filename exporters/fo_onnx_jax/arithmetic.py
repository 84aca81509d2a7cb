"""JAX's primitives that recurrent cells are made of, in numpy and double precision.

Nothing is compiled for a handful of evaluations, and rounding hides no difference between two formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_letters
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Params = Mapping[str, Any]


def _dot_general(params: Params, left: Array, right: Array) -> Array:
    (left_sums, right_sums), (left_batch, right_batch) = params["dimension_numbers"]
    if not left_batch:
        return np.tensordot(left, right, (left_sums, right_sums))
    in_left = {axis: ascii_letters[axis] for axis in range(left.ndim)}
    in_right = {axis: ascii_letters[left.ndim + axis] for axis in range(right.ndim)}
    in_right.update(
        (r, in_left[k]) for k, r in zip((*left_batch, *left_sums), (*right_batch, *right_sums), strict=True)
    )
    out = [in_left[k] for k in left_batch]
    out += [in_left[k] for k in range(left.ndim) if k not in (*left_batch, *left_sums)]
    out += [in_right[k] for k in range(right.ndim) if k not in (*right_batch, *right_sums)]
    formula = f"{''.join(in_left.values())},{''.join(in_right[k] for k in range(right.ndim))}->{''.join(out)}"
    return np.asarray(np.einsum(formula, left, right, optimize=True))


def _dynamic_slice(params: Params, value: Array, *starts: Any) -> Array:
    # Out of bounds it is moved back inside, by the documentation of jax.lax.dynamic_slice.
    sizes = params["slice_sizes"]
    first = [int(np.clip(i, 0, d - n)) for i, d, n in zip(starts, value.shape, sizes, strict=True)]
    return value[tuple(slice(i, i + n) for i, n in zip(first, sizes, strict=True))]


def _gather_one(params: Params, value: Array, indices: Array) -> Array:
    """The slice at a single index: what indexing becomes where a size is symbolic."""
    numbers = params["dimension_numbers"]
    starts = dict(zip(numbers.start_index_map, indices.astype(int), strict=True))
    found = _dynamic_slice(params, value, *(starts.get(i, 0) for i in range(value.ndim)))
    return np.squeeze(found, tuple(numbers.collapsed_slice_dims))


def _broadcast_in_dim(params: Params, value: Array) -> Array:
    shape = params["shape"]
    spread = np.ones(len(shape), int)
    spread[list(params["broadcast_dimensions"])] = value.shape
    return np.broadcast_to(value.reshape(spread), shape)


def _slice(params: Params, value: Array) -> Array:
    strides = params["strides"] or (1,) * value.ndim
    return value[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _split(params: Params, value: Array) -> list[Array]:
    return np.split(value, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _logistic(params: Params, value: Array) -> Array:
    # By tanh, which does not overflow.
    return 0.5 * np.tanh(0.5 * value) + 0.5


POLYNOMIALS: dict[str, Callable[..., Any]] = {
    "add": lambda p, a, b: a + b,
    "add_any": lambda p, a, b: a + b,
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda p, *v: np.concatenate(v, axis=p["dimension"]),
    "convert_element_type": lambda p, a: a,
    "copy": lambda p, a: a,
    "copy_p": lambda p, a: a,
    "div": lambda p, a, b: a / b,
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "expand_dims": lambda p, a: np.expand_dims(a, p["dimensions"]),
    "gather": _gather_one,
    "integer_pow": lambda p, a: a ** p["y"],
    "mul": lambda p, a, b: a * b,
    "neg": lambda p, a: -a,
    "reduce_sum": lambda p, a: a.sum(tuple(p["axes"])),
    "reshape": lambda p, a: a.reshape(p["new_sizes"]),
    "rev": lambda p, a: np.flip(a, p["dimensions"]),
    "slice": _slice,
    "split": _split,
    "square": lambda p, a: a * a,
    "squeeze": lambda p, a: np.squeeze(a, tuple(p["dimensions"])),
    "sub": lambda p, a, b: a - b,
    "transpose": lambda p, a: np.transpose(a, p["permutation"]),
}
"""Polynomials of their arguments; ``div``, ``integer_pow``, ``gather`` and ``dynamic_slice`` only in some uses."""

OTHERS: dict[str, Callable[..., Any]] = {
    "exp": lambda p, a: np.exp(a),
    "logistic": _logistic,
    "max": lambda p, a, b: np.maximum(a, b),
    "tanh": lambda p, a: np.tanh(a),
}


def computed(name: str, params: Params, values: Sequence[Any]) -> list[Array]:
    """The outputs of the primitive `name`, one of `POLYNOMIALS` or `OTHERS`."""
    found = (POLYNOMIALS.get(name) or OTHERS[name])(params, *values)
    return found if isinstance(found, list) else [found]
