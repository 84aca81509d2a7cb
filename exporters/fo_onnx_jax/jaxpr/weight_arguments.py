"""A function's weights as arguments of its program, where they can be placed.

Weights that a jitted function closes over become constants of its program: for 100 MB of them it took ten times as long
to compile, and three times the memory, and they could not be put on a device of choice (jax 0.7.1; from 0.8 on JAX does
the like by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from .interpreter import bind, evaluate

_JITTED = ("jit", "pjit")


def split_weights(function: Callable[..., Any], example: Sequence[Any]) -> tuple[Callable[..., Any], list[Any]]:
    """Return a function of its weights and its arguments, and the weights.

    Args:
        function: A traceable function of arrays that returns one.
        example: Arrays or ShapeDtypeStructs in their dtypes and shapes.

    Returns:
        ``step(weights, *arrays)``, which gives what ``function(*arrays)`` gives, and ``weights``.
    """
    closed = trace(function, example)

    def step(weights: Sequence[Any], *arrays: Any) -> Any:
        return jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, weights))(*arrays)[0]

    return step, list(closed.consts)


def trace(function: Callable[..., Any], example: Sequence[Any]) -> Any:
    """Return the closed jaxpr of a function of arrays, with the weights of the jits within it among its own constants."""
    closed = jax.make_jaxpr(function)(*example)
    if not any(map(_holds_weights, closed.eqns)):
        return closed
    # An inner jit keeps its weights to itself. They stay those that the model holds, alike for each shape of batch, if nothing
    # is computed of them here.
    return jax.make_jaxpr(lambda *arrays: evaluate(closed, arrays, bind, folds_constants=False))(*example)


def _holds_weights(equation: Any) -> bool:
    """Return whether an equation is a jit whose program has arrays of its own, itself or in a jit within it."""
    if equation.primitive.name not in _JITTED:
        return False
    inner = equation.params["jaxpr"]
    return bool(inner.consts) or any(map(_holds_weights, inner.eqns))
