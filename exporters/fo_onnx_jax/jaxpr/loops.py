"""Loops in models that go to ONNX: short ones are unrolled, others are a reason to run the model in JAX.

A ``lax.scan`` becomes an ONNX Loop, whose body is called once a step: a third of ``jax.jit``'s speed at batch 16. A scan with
matrix products is no better unrolled: LSTM and GRU cells of 24 steps reached 0.6 to 1.4 of ``jax.jit``'s speed at batch 16 to 256
on two cores, without a rule by which to tell where they win.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import export

from .interpreter import Values, bind, inner_jaxprs, is_concrete, rewrite

SHORT_STEPS = 32
SHORT_EQUATIONS = 512
"""A scan is short with at most so many steps, and so many equations in all of them, none of them of `_LONG_PRIMITIVES`."""
_LONG_PRIMITIVES = {"dot_general", "conv_general_dilated", "scan", "while", "cond"}


def unroll_short_scans(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its short scans unrolled, unless they are within other loops and branches."""

    def unroll(equation: Any, values: Values) -> list[Any]:
        short = equation.primitive.name == "scan" and is_short(equation)
        return bind(equation, values, {**equation.params, "unroll": equation.params["length"]} if short else None)

    return rewrite(function, unroll)


def find_loops(function: Callable[..., Any], *example: Any, unrolls_short_scans: bool = True) -> list[str]:
    """Return what in `function` makes its ONNX model slower than ``jax.jit``: one text for each kind of loop.

    Args:
        function: A traceable function of arrays.
        example: Arrays or ShapeDtypeStructs; the batch is axis 0.
        unrolls_short_scans: Whether the model is to be exported with `unroll_short_scans`; without it every scan is a loop.

    Raises:
        Exception: What `function` raises when it is traced for a batch of any size, as an export traces it.
    """
    loops: dict[str, None] = {}

    def look(equation: Any, values: Values) -> list[Any]:
        name = equation.primitive.name
        within = {p for inner in inner_jaxprs(equation.params) for p in _primitives(inner)}
        if all(map(is_concrete, values)):
            pass  # of weights alone: it is computed while the model is exported
        elif name == "while":
            loops["a while loop"] = None
        elif name == "scan" and not (unrolls_short_scans and is_short(equation)):
            loops[f"a lax.scan over {equation.params['length']} steps"] = None
        elif name == "cond" and within & {"scan", "while"}:
            loops["a loop inside of a lax.cond"] = None
        return bind(equation, values)

    # The batch is a symbol, by which a scan over it is distinguished from one over a sequence.
    jax.make_jaxpr(rewrite(function, look))(*export.symbolic_args_specs(example, "(batch, ...)"))
    return [f"it holds {loop}, and a Loop in ONNX is slower than jax.jit" for loop in loops]


def is_short(equation: Any) -> bool:
    """Return whether a scan is better unrolled than looped: few steps of few elementwise operations."""
    names = list(_primitives(equation.params["jaxpr"].jaxpr))
    length = equation.params["length"]
    return (
        isinstance(length, int)  # over the batch it may be a symbol
        and length <= SHORT_STEPS
        and length * len(names) <= SHORT_EQUATIONS
        and not _LONG_PRIMITIVES.intersection(names)
    )


def _primitives(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in inner_jaxprs(equation.params):
            yield from _primitives(inner)
