"""Reductions over windows and running reductions.

Two of jax2tf's own rules are silently wrong without XLA: ``reduce_window_max`` with explicit padding pads with 0 instead of −∞, which
shows if a window has only negative numbers (``_pad_spatial_dims`` in ``jax/experimental/jax2tf/impl_no_xla.py``), and ``cummax``
and ``cummin``, which are made of it. Others are missing: windows over more than two axes, as ``vmap`` makes them, and ``cumprod``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorflow as tf

from .onnx_nodes import onnx_node, sizes_of

Pads = Sequence[tuple[int, int]]

_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "max": tf.maximum, "min": tf.minimum, "add": tf.add, "mul": tf.multiply,
}  # fmt: skip
_MOST_SPATIAL_AXES = 3
"""Of a pool in ONNX Runtime (``core/providers/cpu/nn/pool.cc``)."""


class _Window(NamedTuple):
    """A window along one axis."""

    width: int
    stride: int
    padding: tuple[int, int]
    dilation: int


def window_reduction(
    x: Any, *, kind: str, window_dimensions: Sequence[int], window_strides: Sequence[int], padding: Pads,
    base_dilation: Sequence[int], window_dilation: Sequence[int], _in_avals: Any, _out_aval: Any, **_: Any,
) -> Any:  # fmt: skip
    """Convert ``lax.reduce_window_max_p``, ``_min_p`` and ``_sum_p``: padding counts as the reduction's identity.

    Raises:
        NotImplementedError: A dilated operand.
    """
    if any(d != 1 for d in base_dilation):
        raise NotImplementedError(f"reduce_window_{kind} with base_dilation={tuple(base_dilation)}")
    # The axes over which something is reduced.
    along = map(_Window, window_dimensions, window_strides, [(int(a), int(b)) for a, b in padding], window_dilation)
    windows = {axis: w for axis, w in enumerate(along) if w[:3] != (1, 1, (0, 0))}
    if _has_pool(kind, windows, x.dtype):
        return _pool(kind, windows, x, _in_avals[0].shape, _out_aval.shape)
    return _combine_slices(kind, windows, x)


def _has_pool(kind: str, windows: Mapping[int, _Window], dtype: Any) -> bool:
    """Return whether ONNX Runtime has a pool for the windows. It has them in float32, in which integers would lose digits."""
    inside = all(min(w.padding) >= 0 and max(w.padding) < w.width for w in windows.values())
    # AveragePool has dilations from operator set 19 on only.
    dilated_sum = kind == "add" and any(w.dilation != 1 for w in windows.values())
    few = 1 <= len(windows) <= _MOST_SPATIAL_AXES
    return dtype == tf.float32 and kind != "mul" and inside and few and not dilated_sum


def _pool(kind: str, windows: Mapping[int, _Window], x: Any, shape: Sequence[Any], out_shape: Sequence[Any]) -> Any:
    """Reduce by MaxPool or AveragePool, which count padding as nothing or, if asked, as 0."""
    # Pools reduce over the last axes, and batch and channels are what ONNX wants in front.
    others = [i for i in range(len(shape)) if i not in windows]
    order = [*others, *windows]
    x = tf.transpose(x, order)
    in_front = [shape[i] for i in others]
    if len(others) != 2:
        x = tf.reshape(x, (-1, 1, *sizes_of([shape[i] for i in windows])))
        in_front = [None, 1]
    outputs = [(x.dtype, [*in_front, *(out_shape[i] for i in windows)])]
    width, strides, padding, dilations = map(list, zip(*windows.values(), strict=True))
    attributes = {"kernel_shape": width, "strides": strides, "pads": [p[end] for end in (0, 1) for p in padding]}
    # ONNX has no pool of sums or minima: a mean times its size, a maximum of the negatives.
    if kind == "add":
        (mean,) = onnx_node("AveragePool", [x], outputs, count_include_pad=1, **attributes)
        reduced = mean * tf.constant(math.prod(width), x.dtype)
    else:
        (highest,) = onnx_node("MaxPool", [x if kind == "max" else -x], outputs, dilations=dilations, **attributes)
        reduced = highest if kind == "max" else -highest
    if len(others) != 2:
        reduced = tf.reshape(reduced, sizes_of([out_shape[i] for i in order]))
    return tf.transpose(reduced, np.argsort(order))


def _combine_slices(kind: str, windows: Mapping[int, _Window], x: Any) -> Any:
    """Reduce by combining shifted slices, one axis after another: for every dtype, padding and number of axes."""
    for axis, (width, stride, padding, dilation) in windows.items():
        x = _pad(x, axis, padding, _identity_of(kind, x.dtype.as_numpy_dtype))
        before: list[Any] = [slice(None)] * axis
        reach = (width - 1) * dilation
        starts = [i * dilation for i in range(width)]
        slices = [x[(*before, slice(s, s - reach or None, stride))] for s in starts]
        x = functools.reduce(_COMBINE[kind], slices)
    return x


def _identity_of(kind: str, dtype: Any) -> Any:
    """Return the number that changes nothing in a reduction."""
    if kind in ("add", "mul"):
        return np.dtype(dtype).type(kind == "mul")
    if np.issubdtype(dtype, np.integer):
        return np.dtype(dtype).type(np.iinfo(dtype).min if kind == "max" else np.iinfo(dtype).max)
    return np.dtype(dtype).type(-np.inf if kind == "max" else np.inf)


def _pad(x: Any, axis: int, padding: tuple[int, int], fill: Any) -> Any:
    low, high = padding
    if (low, high) == (0, 0):
        return x
    if min(low, high) < 0:
        raise NotImplementedError(f"reduce_window with negative padding {padding}")
    around = [(0, 0)] * x.shape.rank
    around[axis] = (low, high)
    return tf.pad(x, around, constant_values=fill)


def reduce_window(*args: Any, jaxpr: Any, _in_avals: Any, _out_aval: Any, **params: Any) -> tuple[Any, ...]:
    """Convert ``lax.reduce_window_p``: a reduction by a function, with a value that every window starts with.

    Padding does not count. So it is in XLA on the CPU, though its documentation says that padding gets the first value.

    Raises:
        NotImplementedError: The function is none of max, min, add and mul.
    """
    names = [e.primitive.name for e in jaxpr.eqns]
    if len(args) != 2 or len(names) != 1 or names[0] not in _COMBINE:
        raise NotImplementedError(
            f"reduce_window by {', '.join(names)} over {len(args) // 2} arrays; max, min, add and mul over one can be converted"
        )
    operand, first = args
    reduced = window_reduction(operand, kind=names[0], _in_avals=_in_avals[:1], _out_aval=_out_aval[0], **params)
    return (_COMBINE[names[0]](reduced, first),)


def running_reduction(x: Any, *, kind: str, axis: int, reverse: bool, _in_avals: Any, **_: Any) -> Any:
    """Convert ``lax.cummax_p``, ``cummin_p`` and ``cumprod_p`` to ⌈log₂ n⌉ steps, each over twice the distance of the last.

    Hillis and Steele, Data parallel algorithms (1986). ONNX has only CumSum.
    """
    length = _in_avals[0].shape[axis]
    if not isinstance(length, int):
        raise NotImplementedError(f"cum{kind} over an axis of dynamic size")
    fill = _identity_of(kind, x.dtype.as_numpy_dtype)
    before: list[Any] = [slice(None)] * axis
    step = 1
    while step < length:
        away = slice(step, None) if reverse else slice(None, -step)
        x = _COMBINE[kind](x, _pad(x[(*before, away)], axis, (0, step) if reverse else (step, 0), fill))
        step *= 2
    return x


def running_sum(x: Any, *, axis: int, reverse: bool, **_: Any) -> Any:
    """Convert ``lax.cumsum_p`` to ONNX's CumSum; jax2tf makes a pool of it that is as wide as the axis."""
    return tf.math.cumsum(x, int(axis), reverse=reverse)


RULES: dict[Any, Callable[..., Any]] = {
    jax.lax.reduce_window_max_p: functools.partial(window_reduction, kind="max"),
    jax.lax.reduce_window_min_p: functools.partial(window_reduction, kind="min"),
    jax.lax.reduce_window_sum_p: functools.partial(window_reduction, kind="add"),
    jax.lax.reduce_window_p: reduce_window,
    jax.lax.cummax_p: functools.partial(running_reduction, kind="max"),
    jax.lax.cummin_p: functools.partial(running_reduction, kind="min"),
    jax.lax.cumprod_p: functools.partial(running_reduction, kind="mul"),
    jax.lax.cumsum_p: running_sum,
}
