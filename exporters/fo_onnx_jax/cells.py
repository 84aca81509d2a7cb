"""The body of a ``lax.scan`` as straight-line code that is cut at its activations.

A recurrent cell alternates polynomials (matrix products, sums, Hadamard products) with activations. `Cell.of` lays a scan's
body open as such: calls are inlined, what depends on weights alone is computed, dead and repeated equations go, and
everything left has to be a polynomial or an activation. `Cell.run` then evaluates it on rows with the activations' outputs
*given* instead of computed, which tells how each activation's argument, and each output of the body, depends on the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax._src import core

from .arithmetic import POLYNOMIALS, Array, computed
from .interpretation import is_concrete, rewritten


class UnlikeCellError(Exception):
    """The scan's body is no recurrent cell that ONNX knows; the message says why."""


@dataclass(frozen=True)
class Activation:
    """An activation in the body: its kind (an ONNX name), its equation's output, its argument and that one's sign."""

    kind: str
    output: Any
    argument: Any
    sign: int
    batch_axis: int
    width: int


@dataclass(frozen=True, eq=False)
class Cell:
    """A scan's body, laid open.

    Attributes:
        jaxpr: The body without calls; its inputs are the carries and then the slices of the sequences.
        consts: The values of its constants.
        batch: The number of rows that it works on; a symbol where that may be any.
        activations: In the order of evaluation; each argument depends only on the inputs and on earlier ones.
    """

    jaxpr: Any
    consts: Sequence[Any]
    batch: Any
    activations: tuple[Activation, ...]

    @classmethod
    def of(cls, closed: Any, consts: Sequence[Any]) -> Cell:
        """Lays a body open.

        Args:
            closed: The scan's closed jaxpr.
            consts: The values of its leading inputs, all concrete. The first of the others is (batch, …).

        Raises:
            UnlikeCellError: The body holds something that is neither a polynomial of its inputs nor an activation.
        """
        if not all(map(is_concrete, consts)):
            raise UnlikeCellError("its weights are computed from the input")
        if any(jax.numpy.issubdtype(c.dtype, jax.dtypes.extended) for c in consts if hasattr(c, "dtype")):
            raise UnlikeCellError("its steps draw random numbers")
        # Weights go in as constants, so that what depends on them alone is computed while the body is traced again.
        values = [np.asarray(c) for c in consts]
        inner = core.jaxpr_as_fun(closed)
        avals = [v.aval for v in closed.jaxpr.invars[len(values) :]]
        flat = jax.make_jaxpr(rewritten(lambda *rest: inner(*values, *rest), {}))(*avals)
        once = _without_repetitions(flat)
        jaxpr = once.replace(eqns=_needed(once))
        batch = avals[0].shape[0]
        activations = tuple(_activations(jaxpr, batch))
        return cls(jaxpr, [np.asarray(c, np.float64) for c in flat.consts], batch, activations)

    def run(self, inputs: Sequence[Array], given: Sequence[Array] | None = None) -> tuple[list[Array], list[Array]]:
        """Evaluates the body on any number of rows.

        Args:
            inputs: Carries and slices of the sequences, each (rows, …).
            given: The outputs of the activations, each (rows, width); without it they are computed.

        Returns:
            The arguments of the activations, each (rows, width), and the body's outputs, each (rows, …).
        """
        rows = len(inputs[0])
        batch = self.batch if isinstance(self.batch, int) else rows
        found = []
        for start in range(0, rows, batch):
            # The last ones are repeated where a known batch does not divide the rows.
            part = np.minimum(np.arange(start, start + batch), rows - 1)
            found.append(
                self._run_batch([v[part] for v in inputs], None if given is None else [v[part] for v in given])
            )
        arguments, outputs = (
            [np.concatenate(v)[:rows] for v in zip(*side, strict=True)] for side in zip(*found, strict=True)
        )
        return arguments, outputs

    def _run_batch(self, inputs: Sequence[Array], given: Sequence[Array] | None) -> tuple[list[Array], list[Array]]:
        rows = len(inputs[0])
        known: dict[Any, Array] = dict(zip(self.jaxpr.constvars, self.consts, strict=True))
        known.update(zip(self.jaxpr.invars, inputs, strict=True))
        places = {a.output: i for i, a in enumerate(self.activations)}

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else known[atom]

        for equation in self.jaxpr.eqns:
            place = places.get(equation.outvars[0])
            if place is not None and given is not None:
                like = self.activations[place]
                shape = [d for i, d in enumerate(like.output.aval.shape) if i != like.batch_axis]
                known[like.output] = np.moveaxis(given[place].reshape(rows, *shape), 0, like.batch_axis)
                continue
            params = {key: _with_sizes(value, rows) for key, value in equation.params.items()}
            outputs = computed(equation.primitive.name, params, list(map(read, equation.invars)))
            known.update(zip(equation.outvars, outputs, strict=True))
        arguments = [
            a.sign * np.moveaxis(read(a.argument), a.batch_axis, 0).reshape(rows, -1) for a in self.activations
        ]
        return arguments, [np.asarray(read(v), np.float64) for v in self.jaxpr.outvars]


def _activations(jaxpr: Any, batch: Any) -> list[Activation]:
    """The activations of a body, which holds nothing else but polynomials.

    Raises:
        UnlikeCellError: It does.
    """
    producers = {v: e for e in jaxpr.eqns for v in e.outvars}
    uses = Counter(v for e in jaxpr.eqns for v in e.invars if not isinstance(v, core.Literal))
    uses.update(v for v in jaxpr.outvars if not isinstance(v, core.Literal))
    found: list[Activation] = []
    inside: set[int] = set()
    for equation in reversed(jaxpr.eqns):
        if id(equation) in inside:
            continue
        seen = _activation(equation, producers)
        if seen is not None and all(uses[part.outvars[0]] == 1 for part in seen[2]):
            kind, argument, parts = seen
            inside.update(map(id, parts))
            # Of what is made of an exponential, that one's argument is the negative of what enters the sigmoid.
            found.append(_placed(kind, equation.outvars[0], argument, -1 if parts else 1, batch))
        elif not _is_polynomial(equation, jaxpr.constvars):
            raise UnlikeCellError(f"its body holds {equation.primitive.name}")
    return found[::-1]


def _activation(equation: Any, producers: dict[Any, Any]) -> tuple[str, Any, list[Any]] | None:
    """The kind and the argument of an activation, and the other equations that it is made of."""
    name, first = equation.primitive.name, equation.invars[0] if equation.invars else None
    if name == "logistic":
        return "Sigmoid", first, []
    if name == "tanh":
        return "Tanh", first, []
    if name == "max":
        for value, other in (equation.invars, equation.invars[::-1]):
            if _is_literal(other, 0):
                return "Relu", value, []
    if name == "div" and _is_literal(first, 1):
        # 1 / (1 + exp(-v)), as written before there was a primitive for it.
        below = producers.get(equation.invars[1])
        if below is not None and below.primitive.name == "add":
            for one, power in (below.invars, below.invars[::-1]):
                exp = producers.get(power) if _is_literal(one, 1) and not isinstance(power, core.Literal) else None
                if exp is not None and exp.primitive.name == "exp":
                    return "Sigmoid", exp.invars[0], [below, exp]
    return None


def _placed(kind: str, output: Any, argument: Any, sign: int, batch: Any) -> Activation:
    """An activation with the axis of its batch: the symbolic one, or the first where all sizes are known."""
    shape = output.aval.shape
    if isinstance(batch, int):
        axes = [0] if shape and shape[0] == batch else []
    else:
        axes = [i for i, d in enumerate(shape) if not isinstance(d, int)]
    if len(axes) != 1 or (shape[axes[0]] != batch) or argument.aval.shape != shape:
        raise UnlikeCellError(f"an activation in its body has the shape {shape}, which is not one row per sample")
    width = int(np.prod([d for i, d in enumerate(shape) if i != axes[0]], dtype=np.int64))
    return Activation(kind, output, argument, sign, axes[0], width)


def _is_polynomial(equation: Any, constants: Sequence[Any]) -> bool:
    name = equation.primitive.name
    rest_is_known = all(isinstance(v, core.Literal) or v in constants for v in equation.invars[1:])
    if name in ("div", "dynamic_slice"):
        return rest_is_known
    if name == "gather":
        numbers = equation.params["dimension_numbers"]
        return rest_is_known and equation.invars[1].aval.ndim == 1 and not numbers.operand_batching_dims
    if name == "integer_pow":
        return bool(equation.params["y"] >= 0)
    if name == "convert_element_type":
        return bool(equation.invars[0].aval.dtype == equation.outvars[0].aval.dtype)
    return name in POLYNOMIALS


def _is_literal(atom: Any, number: float) -> bool:
    return isinstance(atom, core.Literal) and np.ndim(atom.val) == 0 and bool(atom.val == number)


def _without_repetitions(closed: Any) -> Any:
    """The jaxpr with the same equation on the same inputs only once; the same weights count as the same input."""
    jaxpr = closed.jaxpr
    same: dict[Any, Any] = {}
    seen: dict[Any, Any] = {}
    kept = []
    for variable, value in zip(jaxpr.constvars, closed.consts, strict=True):
        array = np.asarray(value)
        same[variable] = seen.setdefault((array.shape, array.dtype, array.tobytes()), variable)

    def atom(v: Any) -> Any:
        return v if isinstance(v, core.Literal) else same.get(v, v)

    for equation in jaxpr.eqns:
        inputs = [atom(v) for v in equation.invars]
        key = (equation.primitive, str(equation.params), tuple(_identity(v) for v in inputs))
        if key in seen:
            same.update(zip(equation.outvars, seen[key], strict=True))
        else:
            seen[key] = equation.outvars
            kept.append(equation.replace(invars=inputs))
    return jaxpr.replace(eqns=kept, outvars=[atom(v) for v in jaxpr.outvars])


def _identity(atom: Any) -> Any:
    return ("literal", str(atom.val), str(atom.aval)) if isinstance(atom, core.Literal) else id(atom)


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that outputs depend on."""
    needed = {v for v in jaxpr.outvars if not isinstance(v, core.Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if any(v in needed for v in equation.outvars) or equation.effects:
            kept.append(equation)
            needed.update(v for v in equation.invars if not isinstance(v, core.Literal))
    return kept[::-1]


def _with_sizes(value: Any, rows: int) -> Any:
    """A parameter of an equation with sizes for symbolic dimensions, all of which are made of the batch alone."""
    if core.is_symbolic_dim(value):
        return int(value._evaluate(dict.fromkeys(value._get_vars(), rows)))
    if type(value) in (tuple, list):
        return type(value)(_with_sizes(v, rows) for v in value)
    return value
