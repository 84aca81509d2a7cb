"""Functions that ONNX has no operator for, made of those that it has. Each is a `Build` of `nodes`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .nodes import Nodes

LARGEST_UNROLLED = 32
"""Rows of the largest matrix that `cholesky` decomposes: 7 nodes for each."""


def erfc(nodes: Nodes) -> str:
    """Make 1 − erf(x). Right to float32's resolution of 1, not relative to results near 0; GELU, its use, adds to 1."""
    (x,) = nodes.inputs
    return nodes.make("Sub", nodes.const(1, nodes.dtype(x)), nodes.make("Erf", x))


def expm1(nodes: Nodes) -> str:
    """Make exp(x) − 1 as tanh(x / 2) · (exp(x) + 1), without cancellation near 0 (NIST DLMF 4.35.1 rearranged)."""
    (x,) = nodes.inputs
    dtype = nodes.dtype(x)
    half = nodes.make("Tanh", nodes.make("Mul", x, nodes.const(0.5, dtype)))
    return nodes.make("Mul", half, nodes.make("Add", nodes.make("Exp", x), nodes.const(1, dtype)))


def log1p(nodes: Nodes) -> str:
    """Make log(u) · x / (u − 1) with u = fl(1 + x), and x where u is 1.

    Goldberg, What Every Computer Scientist Should Know About Floating-Point Arithmetic (1991), theorem 4. Above 1 it is
    log(u), since the quotient is ∞ / ∞ at infinity.
    """
    (x,) = nodes.inputs
    one = nodes.const(1, nodes.dtype(x))
    u = nodes.make("Add", one, x)
    log_u = nodes.make("Log", u)
    corrected = nodes.make("Mul", log_u, nodes.make("Div", x, nodes.make("Sub", u, one)))
    near_zero = nodes.make("Where", nodes.make("Equal", u, one), x, corrected)
    return nodes.make("Where", nodes.make("Greater", x, one), log_u, near_zero)


def erfinv(nodes: Nodes) -> str:
    """Make the inverse of erf: x times a polynomial in w (Giles, GPU Computing Gems Jade Edition, 2011).

    With w = -log((1 - x)(1 + x)), one polynomial in w - 2.5 for w < 5 and one in √w - 3 above; ±1 give ±∞. Accurate to
    a few units in the last place of float32.
    """
    (x,) = nodes.inputs
    dtype = nodes.dtype(x)
    one, infinity = nodes.const(1, dtype), nodes.const(np.inf, dtype)
    w = nodes.make("Neg", nodes.make("Log", nodes.make("Mul", nodes.make("Sub", one, x), nodes.make("Add", one, x))))
    centre = _polynomial(nodes, nodes.make("Sub", w, nodes.const(2.5, dtype)), _ERFINV_CENTRE)
    tails = _polynomial(nodes, nodes.make("Sub", nodes.make("Sqrt", w), nodes.const(3, dtype)), _ERFINV_TAILS)
    factor = nodes.make("Where", nodes.make("Less", w, nodes.const(5, dtype)), centre, tails)
    at_the_ends = nodes.make("Equal", nodes.make("Abs", x), one)
    return nodes.make("Mul", x, nodes.make("Where", at_the_ends, infinity, factor))


def lgamma(nodes: Nodes) -> str:
    """Make log |Γ(x)| by Lanczos's approximation, g = 7, nine terms (Press et al., Numerical Recipes, 3rd ed., 6.1).

    Below 1/2 by Γ(x) Γ(1 - x) = π / sin(πx) (NIST DLMF 5.5.3). Right to about 1e-6 where the result is near 0.
    """
    (x,) = nodes.inputs
    dtype = nodes.dtype(x)
    one, half = nodes.const(1, dtype), nodes.const(0.5, dtype)
    reflected = nodes.make("Less", x, half)
    z = nodes.make("Where", reflected, nodes.make("Neg", x), nodes.make("Sub", x, one))
    series = nodes.const(_LANCZOS[0], dtype)
    for i, coefficient in enumerate(_LANCZOS[1:], 1):
        term = nodes.make("Div", nodes.const(coefficient, dtype), nodes.make("Add", z, nodes.const(i, dtype)))
        series = nodes.make("Add", series, term)
    t = nodes.make("Add", z, nodes.const(_LANCZOS_G + 0.5, dtype))
    power = nodes.make("Sub", nodes.make("Mul", nodes.make("Add", z, half), nodes.make("Log", t)), t)
    constant = nodes.const(0.5 * np.log(2 * np.pi), dtype)
    result = nodes.make("Add", nodes.make("Add", power, constant), nodes.make("Log", series))
    # The sine of what is left of x after its integer part: π x loses digits.
    rest = nodes.make("Sub", x, nodes.make("Floor", x))
    sine = nodes.make("Abs", nodes.make("Sin", nodes.make("Mul", rest, nodes.const(np.pi, dtype))))
    mirrored = nodes.make("Sub", nodes.const(np.log(np.pi), dtype), nodes.make("Add", nodes.make("Log", sine), result))
    return nodes.make("Where", reflected, mirrored, result)


def cholesky(nodes: Nodes) -> str:
    """Make the lower factor of (…, n, n), column by column (Golub and Van Loan, Matrix Computations, 4th ed., 4.2.2).

    Raises:
        ValueError: n is dynamic or above `LARGEST_UNROLLED`.
    """
    (rest,) = nodes.inputs
    shape, dtype = nodes.shape(rest), nodes.dtype(rest)
    n = shape[-1]
    if not 1 <= n <= LARGEST_UNROLLED:
        size = "unknown size" if n < 0 else f"{n} rows"
        raise ValueError(f"a Cholesky factor of matrices of {size}; up to {LARGEST_UNROLLED} rows can be converted")
    columns = []
    for i in range(n):
        column = _slice(nodes, rest, len(shape) - 1, i)
        pivot = _slice(nodes, column, len(shape) - 2, i)
        # What is above the diagonal is 0 but for rounding.
        below = nodes.const((np.arange(n) >= i)[:, None], dtype)
        column = nodes.make("Mul", nodes.make("Div", column, nodes.make("Sqrt", pivot)), below)
        columns.append(column)
        if i < n - 1:
            row = nodes.make("Transpose", column, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
            rest = nodes.make("Sub", rest, nodes.make("Mul", column, row))
    return nodes.make("Concat", *columns, axis=len(shape) - 1)


def _slice(nodes: Nodes, x: str, axis: int, index: int) -> str:
    """Make the slice of one element of an axis, which stays."""
    start, end, axes = (nodes.const([i], np.int64) for i in (index, index + 1, axis))
    return nodes.make("Slice", x, start, end, axes)


def _polynomial(nodes: Nodes, x: str, coefficients: Sequence[float]) -> str:
    """Make a polynomial by Horner's scheme, the coefficient of the highest power first."""
    dtype = nodes.dtype(nodes.inputs[0])
    result = nodes.const(coefficients[0], dtype)
    for coefficient in coefficients[1:]:
        result = nodes.make("Add", nodes.make("Mul", result, x), nodes.const(coefficient, dtype))
    return result


_ERFINV_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_TAILS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
_LANCZOS_G = 7
_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
)  # fmt: skip
