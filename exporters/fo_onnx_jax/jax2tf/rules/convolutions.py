"""Convolutions of JAX as ONNX's.

jax2tf without XLA has those that ``tf.nn.conv2d`` can do on the CPU: one or two spatial axes, no groups, transposed ones only with
the padding of ``SAME`` or ``VALID`` (``jax/experimental/jax2tf/impl_no_xla.py``). ONNX's Conv and ConvTranspose take groups, three
axes and any padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from jax._src import core

from .onnx_nodes import onnx_node, sizes_of

Pads = Sequence[tuple[int, int]]


def conv_general_dilated(
    lhs: Any, rhs: Any, *, window_strides: Sequence[int], padding: Pads, lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int], dimension_numbers: Any, feature_group_count: int, batch_group_count: int,
    _in_avals: Any, _out_aval: Any, **_: Any,
) -> Any:  # fmt: skip
    """Convert ``lax.conv_general_dilated_p`` to Conv, or to ConvTranspose if only the input is dilated.

    Raises:
        NotImplementedError: A convolution of integers, groups of batches, or padding that depends on a dynamic size.
    """
    dtype = np.dtype(_out_aval.dtype)
    if not np.issubdtype(dtype, np.floating) or batch_group_count != 1:
        raise NotImplementedError(
            f"conv_general_dilated of {dtype} with batch_group_count={batch_group_count}: ONNX convolves "
            "floating-point numbers, without groups of batches"
        )
    if not all(map(core.is_constant_shape, padding)):
        raise NotImplementedError(f"conv_general_dilated with padding {padding}, which depends on a dynamic size")
    lhs_spec, rhs_spec, out_spec = dimension_numbers
    x = tf.transpose(tf.cast(lhs, dtype), lhs_spec)
    w = tf.transpose(tf.cast(rhs, dtype), rhs_spec)
    shape = tuple(_out_aval.shape[i] for i in out_spec)
    kernel = tuple(_in_avals[1].shape[i] for i in rhs_spec[2:])
    # A dilated input is a transposed convolution, or is spread out with zeros.
    if any(d != 1 for d in lhs_dilation):
        plain = feature_group_count == 1 and all(s == 1 for s in window_strides)
        transposed = _transposed_attributes(kernel, padding, lhs_dilation, rhs_dilation) if plain else None
        if transposed is not None:
            axes = range(2, 2 + len(kernel))
            flipped = tf.transpose(tf.reverse(w, axes), (1, 0, *axes))
            (y,) = onnx_node("ConvTranspose", [x, flipped], [(dtype, shape)], **transposed)
            return tf.transpose(y, np.argsort(out_spec))
        x = _dilate(x, (1, 1, *lhs_dilation), [_in_avals[0].shape[i] for i in lhs_spec])
    x, padding = _crop(x, padding)
    (y,) = onnx_node(
        "Conv", [x, w], [(dtype, shape)], kernel_shape=list(kernel), strides=list(window_strides),
        dilations=list(rhs_dilation), pads=_onnx_pads(padding), group=feature_group_count,
    )  # fmt: skip
    return tf.transpose(y, np.argsort(out_spec))


def _transposed_attributes(
    kernel: Sequence[int], padding: Pads, lhs_dilation: Sequence[int], rhs_dilation: Sequence[int]
) -> dict[str, Any] | None:
    """Return ConvTranspose's attributes for a convolution of a dilated input; ``None`` if there are none.

    A transposed convolution is a convolution with the flipped kernel over the input with ``stride - 1`` zeros between its
    elements and ``reach - pad`` around them, ``reach`` being the dilated kernel's size less 1 (ONNX operator ConvTranspose).
    """
    reaches = [(k - 1) * d for k, d in zip(kernel, rhs_dilation, strict=True)]
    pads = [(reach - low, reach - high) for reach, (low, high) in zip(reaches, padding, strict=True)]
    more = [max(0, -end) for _, end in pads]
    if any(begin < 0 for begin, _ in pads) or any(m >= s for m, s in zip(more, lhs_dilation, strict=True)):
        return None
    return {
        "kernel_shape": list(kernel),
        "strides": list(lhs_dilation),
        "dilations": list(rhs_dilation),
        "pads": _onnx_pads([(begin, max(0, end)) for begin, end in pads]),
        "output_padding": more,
    }


def _dilate(x: Any, factors: Sequence[int], shape: Sequence[Any]) -> Any:
    """Return `x` of `shape` with ``factor - 1`` zeros between neighbours on each axis."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        # Zeros behind each element, then without those behind the last.
        apart = tf.pad(
            tf.expand_dims(x, axis + 1),
            [*[(0, 0)] * (axis + 1), (0, factor - 1), *[(0, 0)] * (x.shape.rank - axis - 1)],
        )
        long = [*shape[:axis], shape[axis] * factor, *shape[axis + 1 :]]
        before: list[Any] = [slice(None)] * axis
        x = tf.reshape(apart, sizes_of(long))[(*before, slice(0, -(factor - 1)))]
        shape = [*shape[:axis], shape[axis] * factor - (factor - 1), *shape[axis + 1 :]]
    return x


def _crop(x: Any, padding: Pads) -> tuple[Any, Pads]:
    """Return `x` with negative padding, which ONNX lacks, cut off by slices, and the rest of the padding."""
    if any(low < 0 or high < 0 for low, high in padding):
        cuts = [slice(max(0, -low), min(0, high) or None) for low, high in padding]
        x = x[(slice(None), slice(None), *cuts)]
        padding = [(max(0, low), max(0, high)) for low, high in padding]
    return x, padding


def _onnx_pads(padding: Pads) -> list[int]:
    """Return the padding in ONNX's order: what is in front of each axis, then what is behind."""
    return [int(p) for p in itertools.chain(*zip(*padding, strict=True))]


RULES = {jax.lax.conv_general_dilated_p: conv_general_dilated}
