"""A function's weights as arguments of its program, where they can be placed.

Weights that a jitted function closes over become constants of its program: for 100 MB of them it took ten times as long
to compile, and three times the memory, and they could not be put on a device of choice (jax 0.7.1; from 0.8 on JAX does
the like by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from .interpretation import bind

_JITTED = ("jit", "pjit")


def hoisted(function: Callable[..., Any], example: Sequence[Any]) -> tuple[Callable[..., Any], list[Any]]:
    """A function of its weights and its arguments, and the weights.

    Args:
        function: A traceable function of arrays that returns one.
        example: Arrays or ShapeDtypeStructs in their dtypes and shapes.

    Returns:
        ``step(weights, *arrays)``, which gives what ``function(*arrays)`` gives, and ``weights``.
    """
    closed = jax.make_jaxpr(function)(*example)
    if any(_holds_weights(e) for e in closed.eqns):
        # An inner jit keeps its weights to itself.
        program = closed
        closed = jax.make_jaxpr(lambda *arrays: _evaluated(program, arrays))(*example)

    def step(weights: Sequence[Any], *arrays: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, weights))(*arrays)[0]

    return step, list(closed.consts)


def _evaluated(closed: Any, arrays: Sequence[Any]) -> list[Any]:
    """The outputs of a program, its inner jits that hold weights evaluated in their place."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | dict(zip(jaxpr.invars, arrays, strict=True))

    def value(var: Any) -> Any:
        return var.val if isinstance(var, Literal) else known[var]

    for equation in jaxpr.eqns:
        values = [value(v) for v in equation.invars]
        within = _holds_weights(equation)
        with equation.ctx.manager:  # such as the precision of products that a context manager asked for
            found = _evaluated(equation.params["jaxpr"], values) if within else bind(equation, values)
        known.update(zip(equation.outvars, found, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _holds_weights(equation: Any) -> bool:
    """Whether an equation is a jit whose program has arrays of its own, itself or in a jit within it."""
    if equation.primitive.name not in _JITTED:
        return False
    inner = equation.params["jaxpr"]
    return bool(inner.consts) or any(_holds_weights(e) for e in inner.eqns)
