"""Functions evaluated again, equation by equation, with some equations done differently.

JAX's own interpreter (``jax.core.eval_jaxpr``) binds each primitive as it stands. This one leaves that to a rule, goes into
jitted functions and functions with derivatives of their own, and computes at once what depends on constants alone, so
that the rule sees a weight as an array even if it was transposed and joined on the way.

The jaxpr format is internal to JAX. What is used of it here (``eqns``, ``get_bind_params``, ``eval_context``) was tried on
jax 0.7.1, 0.8.1 and 0.10.2.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax._src import core

Values = Sequence[Any]
Rule = Callable[[Any, Values], list[Any]]
"""Returns an equation's outputs on values; `bind` is the rule that leaves it as it is."""

_CALLS = {
    "pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat": "jaxpr",
    "remat2": "jaxpr", "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}  # fmt: skip
"""The primitives that only call a jaxpr, with the parameter that holds it."""
_GROWTH_SIZE = 1 << 16
"""Elements up to which a constant may be larger than what it is computed from; a broadcast is better kept than stored."""


def rewrite(function: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """Return `function` with its equations evaluated by a rule.

    It may be called with concrete arrays and with tracers, also with those of ``jax2tf`` whose batch is symbolic. Control
    flow (``scan``, ``while``, ``cond``) is an equation like others: what it holds is left to the rule.

    Args:
        function: A traceable function of pytrees of arrays.
        rule: Evaluates an equation that does something itself, and does not only call a jaxpr.
    """

    @functools.wraps(function)
    def interpret(*args: Any, **kwargs: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args, **kwargs)
        outputs = evaluate(closed, jax.tree.leaves((args, kwargs)), rule)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return interpret


def evaluate(closed: Any, values: Values, rule: Rule, *, folds_constants: bool = True) -> list[Any]:
    """Return the outputs of a closed jaxpr on `values`, one for each of its inputs, by a rule; see `rewrite`."""
    known = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    known.update(zip(closed.jaxpr.invars, values, strict=True))

    def value_of(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        inputs = [value_of(v) for v in equation.invars]
        inner = _called_jaxpr(equation)
        at_once = folds_constants and _is_constant(equation, inputs)
        with core.eval_context() if at_once else contextlib.nullcontext():
            if inner is not None:
                outputs = evaluate(inner, inputs, rule, folds_constants=folds_constants)
            else:
                with equation.ctx.manager:
                    outputs = rule(equation, inputs)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [value_of(v) for v in closed.jaxpr.outvars]


def bind(equation: Any, values: Values, params: Mapping[str, Any] | None = None) -> list[Any]:
    """Return the outputs of an equation as it stands, or with other parameters, on `values`."""
    asked = equation.primitive.get_bind_params(dict(equation.params if params is None else params))
    # Up to jax 0.8 functions come apart from the other parameters.
    functions, rest = asked if isinstance(asked, tuple) else ((), asked)
    outputs = equation.primitive.bind(*functions, *values, **rest)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def inner_jaxprs(params: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the jaxprs among an equation's parameters, branches one after another."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def is_concrete(value: Any) -> bool:
    """Return whether a value is an array in hand rather than one that is being traced."""
    return not isinstance(value, core.Tracer)


def _called_jaxpr(equation: Any) -> Any:
    """Return the closed jaxpr that an equation only calls; ``None`` if it does something itself."""
    inner = equation.params.get(_CALLS.get(equation.primitive.name, ""))
    if inner is None or isinstance(inner, core.ClosedJaxpr):
        return inner
    return core.ClosedJaxpr(inner, ())


def _is_constant(equation: Any, inputs: Values) -> bool:
    """Return whether an equation can and should be computed at once."""
    if equation.effects or not all(map(is_concrete, inputs)) or any(map(_is_symbolic, equation.params.values())):
        return False
    shapes = [getattr(v.aval, "shape", ()) for v in equation.outvars]
    if not all(map(core.is_constant_shape, shapes)):
        return False
    read = sum(math.prod(getattr(v.aval, "shape", ())) for v in equation.invars)
    return sum(map(math.prod, shapes)) <= max(read, _GROWTH_SIZE)


def _is_symbolic(param: Any) -> bool:
    """Return whether a parameter holds a size that only a run knows: a dimension, or a shape with one."""
    return any(map(core.is_symbolic_dim, param)) if isinstance(param, tuple) else bool(core.is_symbolic_dim(param))
