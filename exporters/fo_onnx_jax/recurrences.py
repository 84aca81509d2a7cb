"""``lax.scan`` in models that go to ONNX: recurrences become what ONNX has for them, short loops are unrolled.

By jax2tf a scan becomes an ONNX Loop, whose body is called once a step: a third of ``jax.jit``'s speed at batch 16. What
`recurrences_fused` leaves as loops, `unfused_loops` tells, so that such a model can be run in JAX instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.core import Primitive
from jax.interpreters import mlir

from .cells import UnlikeCellError
from .equations import Recurrence
from .interpretation import Evaluate, Values, bind, inner_jaxprs, is_concrete, rewritten
from .matching import recognised
from .recurrent_nodes import UNROLLED_STEPS, has_fast_nodes, in_tensorflow

SHORT_STEPS = 32
SHORT_EQUATIONS = 512
"""A scan is short with at most so many steps, and so many equations in all of them, no matrix product among them."""

_HEAVY = ("dot_general", "conv_general_dilated", "scan", "while", "cond")

_SLOW = "it holds {}, and a Loop in ONNX is slower than jax.jit"

onnx_recurrence_p: Any = Primitive("onnx_recurrence")
"""x (steps, batch, features), h (batch, hidden) and, for an LSTM, c in; out the last h, the last c, all h (steps, …)."""
onnx_recurrence_p.multiple_results = True


def recurrences_fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its recurrences as `onnx_recurrence_p` and its short scans unrolled; other loops stay.

    It may be called under jax2tf, with `tf_rules` installed, and anywhere else in JAX. Scans inside of other loops and of
    branches stay as they are.
    """
    return rewritten(function, {"scan": _fuse})


def unfused_loops(function: Callable[..., Any], *example: Any, fused: bool = True) -> list[str]:
    """Says what in `function` makes its ONNX model slower than ``jax.jit``: loops, one text for each.

    Short scans (see `SHORT_STEPS`) are none: they are unrolled.

    Args:
        function: A traceable function of arrays.
        example: Arrays or ShapeDtypeStructs; the batch is axis 0.
        fused: Whether the model is to be exported with `recurrences_fused`; without it every scan is a loop.

    Raises:
        Exception: What `function` raises when it is traced.
    """
    try:
        return _loops(function, _with_symbolic_batch(example), fused)
    except Exception:
        # Whatever it is that asks for a known batch: the question can be answered for this one as well.
        return _loops(function, example, fused)


def tf_rules() -> dict[Primitive, Callable[..., Any]]:
    """What jax2tf is to do with the recurrences of `recurrences_fused`: entries of its tables of rules that take avals."""
    return {onnx_recurrence_p: in_tensorflow}


def _fuse(equation: Any, values: Values, evaluate: Evaluate) -> Any:
    if is_short(equation):
        return bind(equation, values, {**equation.params, "unroll": equation.params["length"]})
    try:
        found = recognised(equation, values)
    except UnlikeCellError:
        return NotImplemented
    return _bind_recurrence(found, equation, values)


def _bind_recurrence(found: Recurrence, equation: Any, values: Values) -> list[Any]:
    """The recurrence on a scan's inputs, with the scan's outputs."""
    consts, carries = equation.params["num_consts"], equation.params["num_carry"]
    initial, sequences = values[consts : consts + carries], values[consts + carries :]
    batch = initial[found.hidden].shape[0]
    flat = [jnp.reshape(sequences[i], (found.length, batch, -1)) for i in found.sequences]
    x = flat[0] if len(flat) == 1 else jnp.concatenate(flat, axis=2)
    states = [i for i in (found.hidden, found.memory) if i is not None]
    outputs = onnx_recurrence_p.bind(x, *(initial[i] for i in states), recurrence=found)
    last = dict(zip(states, outputs, strict=False))
    last.update((i, initial[i]) for i in found.kept)
    return [*(last[i] for i in range(carries)), *[outputs[-1]] * found.stacked]


def is_short(equation: Any) -> bool:
    """Whether a scan is better unrolled than looped whatever it computes: few steps of few elementwise operations."""
    names = list(_names(equation.params["jaxpr"].jaxpr))
    length = equation.params["length"]
    # Over the batch it may be a symbol.
    return (
        isinstance(length, int)
        and length <= SHORT_STEPS
        and length * len(names) <= SHORT_EQUATIONS
        and not set(names) & set(_HEAVY)
    )


def _names(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in inner_jaxprs(equation.params):
            yield from _names(inner)


def _loops(function: Callable[..., Any], example: Any, fused: bool) -> list[str]:
    found: list[str] = []

    def look(equation: Any, values: Values, evaluate: Evaluate) -> Any:
        if all(map(is_concrete, values)):
            # Of weights alone: it is computed while the model is exported.
            return NotImplemented
        if equation.primitive.name != "scan":
            found.extend(_loop_inside(equation))
            return NotImplemented
        if not fused:
            found.append(_SLOW.format(f"a lax.scan over {equation.params['length']} steps"))
        elif not is_short(equation):
            return _of_scan(equation, values, found)
        return NotImplemented

    jax.make_jaxpr(rewritten(function, dict.fromkeys(("scan", "while", "cond"), look)))(*example)
    return found


def _of_scan(equation: Any, values: Values, found: list[str]) -> Any:
    """Adds to `found` why a scan is slow in ONNX, where it is; its outputs where it is a recurrence."""
    length = equation.params["length"]
    try:
        recurrence = recognised(equation, values)
    except UnlikeCellError as err:
        found.append(_SLOW.format(f"a lax.scan over {length} steps that is no LSTM, GRU or RNN of ONNX's ({err})"))
        return NotImplemented
    if not has_fast_nodes(recurrence):
        article = "a" if recurrence.kind == "GRU" else "an"
        found.append(
            f"it holds {article} {recurrence.kind} over {length} steps, and ONNX Runtime's is slower than jax.jit beyond "
            f"{UNROLLED_STEPS} steps"
        )
    return _bind_recurrence(recurrence, equation, values)


def _loop_inside(equation: Any) -> list[str]:
    """What there is to say of a ``while`` or a ``cond``."""
    if equation.primitive.name == "while":
        return [_SLOW.format("a while loop")]
    names = {name for inner in inner_jaxprs(equation.params) for name in _names(inner)}
    return [_SLOW.format("a loop inside of a lax.cond")] if names & {"scan", "while"} else []


def _with_symbolic_batch(example: Any) -> Any:
    """The example's shapes with a symbol for the batch, by which a cell's rows are told from its features."""
    (batch,) = export.symbolic_shape("batch")
    struct: Any = jax.ShapeDtypeStruct
    return jax.tree.map(lambda a: struct((batch, *a.shape[1:]), a.dtype) if a.shape else a, example)


def _abstract(x: Any, *initial: Any, recurrence: Recurrence) -> list[Any]:
    hidden = initial[0]
    stacked = [hidden.update(shape=(x.shape[0], *hidden.shape), weak_type=False)] if recurrence.stacked else []
    return [hidden.update(weak_type=False) for _ in initial] + stacked


def _in_jax(x: Any, *initial: Any, recurrence: Recurrence) -> list[Any]:
    def step(states: tuple[Any, ...], x_t: Any) -> tuple[tuple[Any, ...], Any]:
        h, c = recurrence.step(x_t, *states, numpy=jnp)
        return ((h,) if c is None else (h, c)), h

    last, all_h = jax.lax.scan(step, initial, x, reverse=recurrence.reverse)
    return [*last, *([all_h] if recurrence.stacked else [])]


onnx_recurrence_p.def_abstract_eval(_abstract)
onnx_recurrence_p.def_impl(_in_jax)
mlir.register_lowering(onnx_recurrence_p, mlir.lower_fun(_in_jax, multiple_results=True))
