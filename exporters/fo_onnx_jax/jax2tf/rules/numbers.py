"""Numbers that ONNX Runtime does not calculate with: unsigned 32-bit integers, their bits, and complex numbers.

JAX's random numbers are made of the first (Threefry), Fourier transforms of the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from jax._src import prng
from jax.experimental.jax2tf import jax2tf

Rule = Callable[..., Any]
"""As jax2tf calls the rules for graphs without XLA: ``rule(*operands, _in_avals=…, _out_aval=…, **params)``."""

_LONGEST_TRANSFORM = 2048
"""Its matrices are 32 MB."""
_LOW_BITS = 0xFFFF_FFFF


def _wrap_around(original: Rule) -> Rule:
    """Return the rule for sums, differences and products of uint32: in int64, of which the low half is the result.

    ONNX Runtime's Add, Sub and Mul on the CPU know float32, float64, int32 and int64 only. A product of two 32-bit numbers does
    not fit, but int64 too is modular, and its low half is right.
    """

    def rule(x: Any, y: Any, **params: Any) -> Any:
        if x.dtype != tf.uint32:
            return original(x, y, **params)
        wide = original(tf.cast(x, tf.int64), tf.cast(y, tf.int64), **params)
        return tf.cast(tf.bitwise.bitwise_and(wide, tf.constant(_LOW_BITS, tf.int64)), tf.uint32)

    return rule


def _bits_as_float(operand: Any, *, new_dtype: Any, **_: Any) -> Any:
    """Convert ``lax.bitcast_convert_type_p`` from uint32 or int32 to float32: sign · significand · 2^exponent, all exact (IEEE 754).

    ONNX has no such operator before set 26. NaNs come out as infinities; as bits of random numbers they do not occur.

    Raises:
        NotImplementedError: Other dtypes.
    """
    if operand.dtype.as_numpy_dtype == np.dtype(new_dtype).type:
        return operand
    if operand.dtype not in (tf.uint32, tf.int32) or np.dtype(new_dtype) != np.float32:
        raise NotImplementedError(f"bitcast_convert_type from {operand.dtype.name} to {np.dtype(new_dtype)}")
    # In int64, since uint32 has few kernels.
    bits = tf.bitwise.bitwise_and(tf.cast(operand, tf.int64), tf.constant(_LOW_BITS, tf.int64))
    negative = bits >= 1 << 31
    exponent = tf.bitwise.bitwise_and(bits // (1 << 23), tf.constant(0xFF, tf.int64))
    fraction = tf.bitwise.bitwise_and(bits, tf.constant((1 << 23) - 1, tf.int64))
    # Numbers below the normal ones have no leading 1.
    significand = tf.cast(tf.where(exponent > 0, fraction + (1 << 23), fraction), tf.float32)
    # 2^(e - 150) is not a normal number below e = 24, so the power is taken in two halves.
    powers = np.arange(256).clip(1) - 150
    with np.errstate(over="ignore"):
        first, second = np.ldexp(np.float32(1), powers // 2), np.ldexp(np.float32(1), powers - powers // 2)
    second[-1] = np.inf
    magnitude = significand * tf.gather(first, exponent) * tf.gather(second, exponent)
    return tf.where(negative, -magnitude, magnitude)


def _counters(*, shape: Sequence[int], **_: Any) -> tuple[Any, Any]:
    """Convert ``iota_2x32_shape_p``: the positions in an array in two halves.

    jax2tf calculates them in uint64, which ONNX Runtime does not.

    Raises:
        NotImplementedError: The shape is symbolic; then random numbers would depend on the batch.
    """
    if not all(isinstance(d, int) for d in shape):
        raise NotImplementedError("random numbers for a whole batch: a row's would depend on the rows beside it")
    count = np.arange(np.prod(shape, dtype=np.int64)).reshape(tuple(shape))
    return tf.constant((count >> 32).astype(np.uint32)), tf.constant((count & _LOW_BITS).astype(np.uint32))


def parts_of(z: Any) -> tuple[Any, Any]:
    """Return the real and the imaginary part, without a TensorFlow operator if `z` was put together from them."""
    if not z.dtype.is_complex:
        return z, tf.zeros_like(z)
    if z.op.type == "Complex":
        return tuple(z.op.inputs)
    value = tf.get_static_value(z)
    return (tf.math.real(z), tf.math.imag(z)) if value is None else (tf.constant(value.real), tf.constant(value.imag))


def fft(x: Any, *, fft_type: Any, fft_lengths: Sequence[int], _in_avals: Any, **_: Any) -> Any:
    """Convert ``lax.fft_p`` along one or more axes to products with the matrix exp(-2πi jk / n) of the transform.

    ONNX has no complex numbers; tf2onnx converts a transform only if its absolute value is taken at once.
    """
    if any(not isinstance(n, int) or n > _LONGEST_TRANSFORM for n in fft_lengths):
        raise NotImplementedError(f"fft of lengths {tuple(fft_lengths)}; up to {_LONGEST_TRANSFORM} can be converted")
    kind = jax.lax.FftType(fft_type).name
    real, imaginary = parts_of(x)
    rank = real.shape.rank
    matrices = {
        axis: _fourier_matrix(n, 1 if kind.startswith("I") else -1)
        for axis, n in enumerate(fft_lengths, rank - len(fft_lengths))
    }
    # Real signals have half a spectrum: it is made first, and undone last.
    if kind == "RFFT":
        half = matrices.pop(rank - 1)[:, : fft_lengths[-1] // 2 + 1]
        real, imaginary = _transform_along(rank - 1, half, real, None)
    elif kind == "IRFFT":
        matrices[rank - 1] = _half_inverse_matrix(fft_lengths[-1])
    for axis, matrix in matrices.items():
        real, imaginary = _transform_along(axis, matrix, real, imaginary)
    return real if kind == "IRFFT" else tf.complex(real, imaginary)


def _fourier_matrix(n: int, sign: int) -> Any:
    """Return the transform (n, n); with sign 1 its inverse."""
    # Modulo n in integers: the products themselves are too large for exact angles.
    angles = 2 * np.pi * (np.outer(np.arange(n), np.arange(n)) % n) / n
    return np.exp(sign * 1j * angles) / (n if sign == 1 else 1)


def _half_inverse_matrix(n: int) -> Any:
    """Return the inverse for the half spectrum of a real signal (n // 2 + 1, n), whose other half is its conjugate."""
    weights = np.full(n // 2 + 1, 2.0)
    weights[0] = 1
    if n % 2 == 0:
        weights[-1] = 1
    return weights[:, None] * _fourier_matrix(n, 1)[: n // 2 + 1]


def _transform_along(axis: int, matrix: Any, real: Any, imaginary: Any) -> tuple[Any, Any]:
    """Return both parts of (real + i·imaginary) times a complex matrix along an axis; no `imaginary` is 0."""

    def times(x: Any, factor: Any) -> Any:
        order = [*(i for i in range(x.shape.rank) if i != axis), axis]
        moved = tf.linalg.matmul(tf.transpose(x, order), tf.constant(factor, x.dtype))
        return tf.transpose(moved, np.argsort(order))

    if imaginary is None:
        return times(real, matrix.real), times(real, matrix.imag)
    return (
        times(real, matrix.real) - times(imaginary, matrix.imag),
        times(real, matrix.imag) + times(imaginary, matrix.real),
    )


def _absolute(z: Any, **_: Any) -> Any:
    real, imaginary = parts_of(z)
    return tf.sqrt(real * real + imaginary * imaginary)


def _product(x: Any, y: Any, **_: Any) -> Any:
    (a, b), (c, d) = parts_of(x), parts_of(y)
    return tf.complex(a * c - b * d, a * d + b * c)


def _for_complex(rule: Rule, original: Rule) -> Rule:
    """Return a rule that is `rule` for complex numbers and `original` for others."""
    return lambda *operands, **params: (rule if operands[0].dtype.is_complex else original)(*operands, **params)


def _on_parts(original: Rule) -> Rule:
    """Return a rule that does to both parts of complex numbers what `original` does to others."""

    def rule(*operands: Any, **params: Any) -> Any:
        real, imaginary = zip(*map(parts_of, operands), strict=True)
        return tf.complex(original(*real, **params), original(*imaginary, **params))

    return _for_complex(rule, original)


def _to_integers(x: Any, limits: Any) -> Any:
    """Cast to integers as XLA does: what is outside becomes the nearest limit, and NaN 0 (StableHLO leaves both open).

    A bare cast in ONNX Runtime wraps around: 300 as uint8 is 44 in place of 255.
    """
    float_dtype, dtype = x.dtype.as_numpy_dtype, tf.as_dtype(limits.dtype)
    # The largest of the floats that fit; of 32 bits and more the limit itself is none.
    largest = float_dtype(limits.max)
    exceeds = int(largest) > limits.max
    if exceeds:
        largest = np.nextafter(largest, float_dtype(0))
    inside = tf.minimum(tf.maximum(tf.where(tf.math.is_nan(x), tf.zeros_like(x), x), float_dtype(limits.min)), largest)
    if not exceeds or dtype == tf.uint64:
        return tf.cast(inside, dtype)
    # ONNX Runtime's Where has no unsigned integers of 32 bits.
    wide = tf.int64 if dtype == tf.uint32 else dtype
    return tf.cast(tf.where(x > largest, tf.constant(limits.max, wide), tf.cast(inside, wide)), dtype)


def _change_dtype(original: Rule) -> Rule:
    def rule(operand: Any, *, new_dtype: Any, **params: Any) -> Any:
        if not np.issubdtype(new_dtype, np.complexfloating):
            real, _ = parts_of(operand)
            if real.dtype.is_floating and np.issubdtype(new_dtype, np.integer):
                return _to_integers(real, np.iinfo(new_dtype))
            return original(real, new_dtype=new_dtype, **params)
        part = tf.float64 if np.dtype(new_dtype) == np.complex128 else tf.float32
        return tf.complex(*(tf.cast(p, part) for p in parts_of(operand)))

    return rule


def make_rules(originals: dict[Any, Rule]) -> dict[Any, Rule]:
    """Return the rules of this file; `originals` are jax2tf's for graphs without XLA."""

    def original(primitive: Any) -> Rule:
        if primitive not in jax2tf.tf_impl:
            return originals.get(primitive) or jax2tf.tf_impl_with_avals[primitive]
        return lambda *operands, _in_avals, _out_aval, **params: jax2tf.tf_impl[primitive](*operands, **params)

    lax = jax.lax
    alike = (
        lax.reshape_p, lax.broadcast_in_dim_p, lax.squeeze_p, lax.slice_p, lax.pad_p, lax.transpose_p, lax.concatenate_p,
        lax.rev_p, lax.neg_p,
    )  # fmt: skip
    return {
        **{primitive: _on_parts(original(primitive)) for primitive in alike},
        lax.convert_element_type_p: _change_dtype(original(lax.convert_element_type_p)),
        lax.fft_p: fft,
        lax.real_p: lambda z, **_: parts_of(z)[0],
        lax.imag_p: lambda z, **_: parts_of(z)[1],
        lax.abs_p: _for_complex(_absolute, original(lax.abs_p)),
        lax.conj_p: lambda z, **_: tf.complex(parts_of(z)[0], -parts_of(z)[1]),
        lax.add_p: _wrap_around(_on_parts(original(lax.add_p))),
        lax.sub_p: _wrap_around(_on_parts(original(lax.sub_p))),
        lax.mul_p: _wrap_around(_for_complex(_product, original(lax.mul_p))),
        lax.bitcast_convert_type_p: _bits_as_float,
        prng.iota_2x32_shape_p: _counters,
    }
