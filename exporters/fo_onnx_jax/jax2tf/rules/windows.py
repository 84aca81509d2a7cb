"""Reductions over windows and running reductions.

Two of jax2tf's own rules are silently wrong without XLA: ``reduce_window_max`` with explicit padding pads with 0 instead of −∞, which
shows if a window has only negative numbers (``_pad_spatial_dims`` in ``jax/experimental/jax2tf/impl_no_xla.py``), and ``cummax``
and ``cummin``, which are made of it. Others are missing: windows over more than two axes, as ``vmap`` makes them, and ``cumprod``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

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
_POOLED = np.dtype(np.float32)
"""The dtype of ONNX Runtime's pools; integers would lose digits in it, and float16 is taken for it."""


def identity_of(kind: str, dtype: Any) -> Any:
    """Return the number that changes nothing in a reduction."""
    if kind in ("add", "mul"):
        return np.dtype(dtype).type(kind == "mul")
    if np.issubdtype(dtype, np.integer):
        return np.dtype(dtype).type(np.iinfo(dtype).min if kind == "max" else np.iinfo(dtype).max)
    return np.dtype(dtype).type(-np.inf if kind == "max" else np.inf)


def window_reduction(
    operand: Any, *, kind: str, window_dimensions: Sequence[int], window_strides: Sequence[int], padding: Pads,
    base_dilation: Sequence[int], window_dilation: Sequence[int], _in_avals: Any, _out_aval: Any, **_: Any,
) -> Any:  # fmt: skip
    """Convert ``lax.reduce_window_max_p``, ``_min_p`` and ``_sum_p``: padding counts as the reduction's identity.

    Raises:
        NotImplementedError: A dilated operand.
    """
    if any(d != 1 for d in base_dilation):
        raise NotImplementedError(f"reduce_window_{kind} with base_dilation={tuple(base_dilation)}")
    x, dtype = _as_calculated(operand), operand.dtype
    # The axes over which something is reduced.
    axes = [
        i for i, (w, s, p) in enumerate(zip(window_dimensions, window_strides, padding, strict=True))
        if w != 1 or s != 1 or tuple(p) != (0, 0)
    ]  # fmt: skip
    window = _Window(kind, axes, window_dimensions, window_strides, padding, window_dilation)
    if window.has_pool(np.dtype(x.dtype.as_numpy_dtype)):
        reduced = window.pool(x, _in_avals[0].shape, _out_aval.shape)
    else:
        reduced = window.combine_slices(x)
    return tf.cast(reduced, dtype)


def _as_calculated(x: Any) -> Any:
    """Return `x`, in float32 if it is float16: tf2onnx pads that with float32 constants, which is an invalid model."""
    return tf.cast(x, tf.float32) if x.dtype == tf.float16 else x


class _Window:
    """A window over some axes of an array."""

    def __init__(
        self, kind: str, axes: Sequence[int], width: Sequence[int], strides: Sequence[int], padding: Pads,
        dilation: Sequence[int],
    ) -> None:  # fmt: skip
        self.kind, self.axes = kind, axes
        self.width, self.strides, self.dilation = list(width), list(strides), list(dilation)
        self.padding = [(int(low), int(high)) for low, high in padding]

    def has_pool(self, dtype: Any) -> bool:
        """Return whether ONNX Runtime has a pool for the window."""
        inside = all(max(self.padding[i]) < self.width[i] and min(self.padding[i]) >= 0 for i in self.axes)
        dilated = any(self.dilation[i] != 1 for i in self.axes)
        return (
            dtype == _POOLED and self.kind in ("max", "min", "add") and inside
            and 1 <= len(self.axes) <= _MOST_SPATIAL_AXES
            # AveragePool has dilations from operator set 19 on only.
            and not (dilated and self.kind == "add")
        )  # fmt: skip

    def pool(self, x: Any, shape: Sequence[Any], out_shape: Sequence[Any]) -> Any:
        """Reduce by MaxPool or AveragePool, which count padding as nothing or, if asked, as 0."""
        # Pools reduce over the last axes.
        others = [i for i in range(len(shape)) if i not in self.axes]
        order = [*others, *self.axes]
        x = tf.transpose(x, order)
        lead = [shape[i] for i in others]
        if len(others) != 2:
            # Batch and channels are what ONNX wants in front.
            x = tf.reshape(x, (-1, 1, *sizes_of([shape[i] for i in self.axes])))
            lead = [None, 1]
        reduced = self._pool(x, [*lead, *(out_shape[i] for i in self.axes)])
        if len(others) != 2:
            reduced = tf.reshape(reduced, sizes_of([out_shape[i] for i in order]))
        return tf.transpose(reduced, np.argsort(order))

    def _pool(self, x: Any, shape: Sequence[Any]) -> Any:
        width = [self.width[i] for i in self.axes]
        attributes: dict[str, Any] = {
            "kernel_shape": width,
            "strides": [self.strides[i] for i in self.axes],
            "pads": [self.padding[i][end] for end in (0, 1) for i in self.axes],
        }
        # ONNX has no pool of sums or minima: a mean times its size, a maximum of the negatives.
        if self.kind == "add":
            (mean,) = onnx_node("AveragePool", [x], [(x.dtype, shape)], count_include_pad=1, **attributes)
            return mean * tf.constant(math.prod(width), x.dtype)
        attributes["dilations"] = [self.dilation[i] for i in self.axes]
        (highest,) = onnx_node("MaxPool", [x if self.kind == "max" else -x], [(x.dtype, shape)], **attributes)
        return highest if self.kind == "max" else -highest

    def combine_slices(self, x: Any) -> Any:
        """Reduce by combining shifted slices, one axis after another: for every dtype, padding and number of axes."""
        for axis in self.axes:
            x = _pad(x, axis, self.padding[axis], identity_of(self.kind, x.dtype.as_numpy_dtype))
            before: list[Any] = [slice(None)] * axis
            reach = (self.width[axis] - 1) * self.dilation[axis]
            starts = [i * self.dilation[axis] for i in range(self.width[axis])]
            slices = [x[(*before, slice(s, s - reach or None, self.strides[axis]))] for s in starts]
            x = functools.reduce(_COMBINE[self.kind], slices)
        return x


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
    dtype, x = x.dtype, _as_calculated(x)
    fill = identity_of(kind, x.dtype.as_numpy_dtype)
    before: list[Any] = [slice(None)] * axis
    step = 1
    while step < length:
        away = slice(step, None) if reverse else slice(None, -step)
        x = _COMBINE[kind](x, _pad(x[(*before, away)], axis, (0, step) if reverse else (step, 0), fill))
        step *= 2
    return tf.cast(x, dtype)


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
