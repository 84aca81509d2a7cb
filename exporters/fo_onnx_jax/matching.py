"""``lax.scan`` recognised as ONNX's LSTM, GRU or RNN, whatever library wrote its body.

A loop in ONNX costs a call of a subgraph per step; ONNX's recurrent operators do not. Whether a scan is one is decided
by hypothesis and test: the body, cut at its activations (`cells`), is a polynomial between them, and two polynomials
that agree on random points are the same (Schwartz-Zippel). So no form of writing is special: ``(1 - z) * n + z * h``
and ``n + z * (h - n)``, fused gates and single ones, weights on either side, in any order, are all one. What was found
is then compared with the body as a whole, on other rows.

The operators' equations stand in `equations`. A gate that enters as 1 - σ(v) is σ(-v): its weights change their sign.
A cell without reset gate is a GRU whose gate is open for every input.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax._src import core

from .arithmetic import Array
from .cells import Cell, UnlikeCellError
from .equations import Recurrence
from .interpretation import is_concrete

_PROBES = 16
_SAME = 1e-8
"""Largest difference of two polynomials that are the same, in double precision, relative to their largest value."""
_VERIFIED = 1e-5
"""Largest difference of the recognised cell, with its weights in float32, and the body; relative to the largest value."""
_OPEN = 40.0
"""A bias that keeps a gate at 1 whatever its input: σ(40) is 1 in float32."""


def recognise(equation: Any, values: Sequence[Any]) -> Recurrence | None:
    """What a scan is, where it is one of ONNX's recurrent operators; None where it is not.

    Args:
        equation: An equation of the primitive ``scan``.
        values: Its inputs. Weights have to be concrete; what is traced may have a symbolic batch.
    """
    try:
        return recognised(equation, values)
    except UnlikeCellError:
        return None


def recognised(equation: Any, values: Sequence[Any]) -> Recurrence:
    """As `recognise`, but says why.

    Raises:
        UnlikeCellError: The scan is none of ONNX's recurrent operators; the message says what does not fit.
    """
    return _Scan.of(equation, values).recurrence()


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan with its body laid open, as functions of x (rows, features), the states and the blocks.

    A block is the part of an activation's output that is as wide as h: fused gates are several.
    """

    params: dict[str, Any]
    cell: Cell
    states: tuple[int, ...]
    kept: tuple[int, ...]
    sequences: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    hidden_size: int
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, equation: Any, values: Sequence[Any]) -> _Scan:
        params, closed = equation.params, equation.params["jaxpr"]
        consts, carries, body = params["num_consts"], params["num_carry"], closed.jaxpr
        if not isinstance(params["length"], int):
            raise UnlikeCellError("it takes as many steps as the batch has rows")
        # Libraries scan over random keys, too, which a cell at inference does not look at.
        used = {v for e in body.eqns for v in e.invars if not isinstance(v, core.Literal)}
        kept = tuple(i for i in range(carries) if body.outvars[i] is body.invars[consts + i])
        states = tuple(i for i in range(carries) if i not in kept)
        sequences = tuple(i for i, v in enumerate(body.invars[consts + carries :]) if v in used)
        fixed = [i for i in (*range(consts), *(consts + k for k in kept)) if body.invars[i] in used]
        free = [*(consts + i for i in states), *(consts + carries + i for i in sequences)]
        if not sequences or not params["length"]:
            raise UnlikeCellError("it reads no sequence")
        hidden_size = _hidden_size([body.invars[i].aval for i in free], len(states))
        if not all(is_concrete(values[i]) for i in fixed):
            raise UnlikeCellError("its weights, or what else its steps share, are computed from the input")
        reordered = _with_inputs(closed, [*fixed, *free], [*states, *range(carries, len(body.outvars))])
        cell = Cell.of(reordered, [values[i] for i in fixed])
        shapes = tuple(tuple(body.invars[consts + carries + i].aval.shape[1:]) for i in sequences)
        kinds = []
        for activation in cell.activations:
            if activation.width % hidden_size:
                raise UnlikeCellError(f"an activation is {activation.width} wide, and its state {hidden_size}")
            kinds += [activation.kind] * (activation.width // hidden_size)
        return cls(params, cell, states, kept, sequences, shapes, hidden_size, tuple(kinds))

    @property
    def features(self) -> int:
        return sum(int(np.prod(s, dtype=np.int64)) for s in self.shapes)

    def recurrence(self) -> Recurrence:
        """The first kind that fits, compared with the body as a whole."""
        finders = {1: (_rnn, _gru), 2: (_lstm,)}.get(len(self.states), ())
        probe = _Probe(self)
        for find in finders:
            for found in find(probe):
                if _agrees(self, found):
                    return found
        kinds = ", ".join(self.kinds) or "none"
        raise UnlikeCellError(f"its equations are none of theirs (states: {len(self.states)}, activations: {kinds})")

    def run(
        self, x: Array, states: Sequence[Array], blocks: Sequence[Array] | None = None
    ) -> tuple[list[Array], list[Array]]:
        """The arguments of the blocks, each (rows, hidden), and the body's outputs."""
        sizes = [int(np.prod(s, dtype=np.int64)) for s in self.shapes]
        parts = np.split(x, np.cumsum(sizes)[:-1], axis=1)
        inputs = [*states, *(p.reshape(len(x), *s) for p, s in zip(parts, self.shapes, strict=True))]
        given = None
        if blocks is not None:
            left = iter(blocks)
            widths = [a.width // self.hidden_size for a in self.cell.activations]
            given = [np.concatenate(list(itertools.islice(left, n)), axis=1) for n in widths]
        arguments, outputs = self.cell.run(inputs, given)
        pieces = [p for a in arguments for p in np.split(a, a.shape[1] // self.hidden_size, axis=1)]
        return pieces, outputs


class _Probe:
    """What a scan's body gives on random rows with the blocks' outputs given, and its derivatives."""

    def __init__(self, scan: _Scan) -> None:
        self.scan = scan
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((_PROBES, scan.features))
        self.states = [rng.standard_normal((_PROBES, scan.hidden_size)) for _ in scan.states]
        self.blocks = [rng.standard_normal((_PROBES, scan.hidden_size)) for _ in scan.kinds]
        self.arguments, self.outputs = scan.run(self.x, self.states, self.blocks)

    def affine(self, h: int, ones: Sequence[int] = ()) -> list[tuple[Array, Array, Array]]:
        """W, R and b of each block's argument, were it affine in x and in the state `h`.

        Args:
            h: Which state.
            ones: The blocks whose outputs are 1; the others are 0.
        """
        features, hidden = self.scan.features, self.scan.hidden_size
        rows = 1 + features + hidden
        basis = np.eye(rows)
        states = [np.zeros((rows, hidden)) for _ in self.states]
        states[h] = basis[:, 1 + features :]
        blocks = [np.full((rows, hidden), float(i in ones)) for i in range(len(self.blocks))]
        found, _ = self.scan.run(basis[:, 1 : 1 + features], states, blocks)
        return [(*np.split((a[1:] - a[0]).T, [features], axis=1), a[0]) for a in found]


def _rnn(probe: _Probe) -> Iterator[Recurrence]:
    if len(probe.blocks) != 1 or not _same(probe.outputs[0], probe.blocks[0]):
        return
    ((w, r, b),) = probe.affine(0)
    if _same(probe.arguments[0], probe.x @ w.T + probe.states[0] @ r.T + b):
        yield _assembled(probe.scan, "RNN", [(w, r, b, 0 * b)], (probe.scan.kinds[0],), hidden=0)


def _gru(probe: _Probe) -> Iterator[Recurrence]:
    kinds, (h,) = probe.scan.kinds, probe.states
    gates = [i for i, kind in enumerate(kinds) if kind == "Sigmoid"]
    for z, r, n in itertools.product(gates, [None, *gates], range(len(kinds))):
        if n in (z, r) or {z, r, n} - {None} != set(range(len(kinds))):
            continue
        update, candidate = probe.blocks[z], probe.blocks[n]
        if _same(probe.outputs[0], (1 - update) * candidate + update * h):
            sign = 1.0
        elif _same(probe.outputs[0], update * candidate + (1 - update) * h):
            sign = -1.0
        else:
            continue
        closed = probe.affine(0)
        inside = closed if r is None else probe.affine(0, ones=[r])
        gate_weights = [(w, u, b, 0 * b) for w, u, b in closed]
        if not all(_is_affine(probe, i, gate_weights[i]) for i in {z, r} - {None} if i is not None):
            continue
        w, _, bias = closed[n]
        _, u, total = inside[n]
        reset = _always_open(w, u) if r is None else gate_weights[r]
        one = 1.0 if r is None else probe.blocks[r]
        first = tuple(sign * part for part in gate_weights[z])
        for linear_before_reset in (False, True):
            if linear_before_reset:
                expected = probe.x @ w.T + bias + one * (h @ u.T + (total - bias))
                parts = (w, u, bias, total - bias)
            else:
                expected = probe.x @ w.T + bias + (one * h) @ u.T
                parts = (w, u, bias, 0 * bias)
            if _same(probe.arguments[n], expected):
                yield _assembled(
                    probe.scan,
                    "GRU",
                    [first, reset, parts],
                    ("Sigmoid", kinds[n]),
                    hidden=0,
                    before=linear_before_reset,
                )


def _lstm(probe: _Probe) -> Iterator[Recurrence]:
    kinds = probe.scan.kinds
    gates = [i for i, kind in enumerate(kinds) if kind == "Sigmoid"]
    if len(kinds) != 5:
        return
    for hidden in (0, 1):
        c = probe.states[1 - hidden]
        new_h, new_c = probe.outputs[hidden], probe.outputs[1 - hidden]
        for i, f, o in itertools.permutations(gates, 3):
            for g, k in itertools.permutations(set(range(5)) - {i, f, o}):
                block = probe.blocks
                memory = block[f] * c + block[i] * block[g]
                fits = _same(new_h, block[o] * block[k]) and _same(new_c, memory)
                if not fits or not _same(probe.arguments[k], memory):
                    continue
                weights = [(w, r, b, 0 * b) for w, r, b in probe.affine(hidden)]
                if all(_is_affine(probe, a, weights[a], hidden) for a in (i, o, f, g)):
                    ordered = [weights[a] for a in (i, o, f, g)]
                    yield _assembled(probe.scan, "LSTM", ordered, ("Sigmoid", kinds[g], kinds[k]), hidden=hidden)


Weights = tuple[Array, Array, Array, Array]
"""W, R, Wb, Rb of one gate."""


def _is_affine(probe: _Probe, block: int, weights: tuple[Any, ...], hidden: int = 0) -> bool:
    """Whether a block's argument is x Wᵀ + h Rᵀ + b, whatever the other state and the blocks are."""
    w, r, b, _ = weights
    return _same(probe.arguments[block], probe.x @ w.T + probe.states[hidden] @ r.T + b)


def _always_open(w: Array, r: Array) -> Weights:
    """A gate that a cell does not have: it is 1 for every input."""
    return 0 * w, 0 * r, np.full(len(w), _OPEN), np.zeros(len(w))


def _assembled(
    scan: _Scan, kind: str, gates: Sequence[tuple[Any, ...]], activations: tuple[str, ...], *, hidden: int, before: bool = False
) -> Recurrence:  # fmt: skip
    w, r, wb, rb = (np.concatenate(parts).astype(np.float32) for parts in zip(*gates, strict=True))
    return Recurrence(
        kind=kind, input_weights=w, recurrent_weights=r, input_bias=wb, recurrent_bias=rb, activations=activations,
        linear_before_reset=before, reverse=scan.params["reverse"], length=scan.params["length"],
        sequences=scan.sequences, hidden=scan.states[hidden], memory=scan.states[1 - hidden] if kind == "LSTM" else None,
        stacked=len(scan.cell.jaxpr.outvars) - len(scan.states), kept=scan.kept,
    )  # fmt: skip


def _agrees(scan: _Scan, found: Recurrence) -> bool:
    """Whether the recognised cell gives what the body gives, for whole rows; and the body gives h for every sequence."""
    rng = np.random.default_rng(1)
    for scale in (1, 4):
        x = scale * rng.standard_normal((_PROBES, scan.features))
        states = {i: np.tanh(rng.standard_normal((_PROBES, scan.hidden_size))) for i in scan.states}
        _, outputs = scan.run(x, list(states.values()))
        h, c = found.step(x, states[found.hidden], None if found.memory is None else states[found.memory])
        expected = {found.hidden: h, found.memory: c}
        wanted = [*(expected[i] for i in scan.states), *[h] * found.stacked]
        if not all(_same(o, e, _VERIFIED) for o, e in zip(outputs, wanted, strict=True)):
            return False
    return True


def _same(found: Any, expected: Any, tolerance: float = _SAME) -> bool:
    if found.shape != expected.shape:
        return False
    largest = float(np.abs(expected).max(initial=0.0))
    return bool(np.abs(found - expected).max(initial=0.0) <= tolerance * largest)


def _hidden_size(avals: Sequence[Any], states: int) -> int:
    """The size of the states, all (batch, hidden), while sequences are (batch, …)."""
    shapes = [tuple(a.shape) for a in avals]
    if not states or any(len(s) != 2 or s != shapes[0] or not isinstance(s[1], int) for s in shapes[:states]):
        raise UnlikeCellError(f"its carries have the shapes {shapes[:states]}, not (batch, hidden)")
    if any(a.dtype != np.float32 for a in avals):
        raise UnlikeCellError("not all that its steps read is float32")
    for shape in shapes[states:]:
        if not shape or shape[0] != shapes[0][0] or not all(isinstance(d, int) for d in shape[1:]):
            raise UnlikeCellError(f"a step of its sequence has the shape {shape}, not (batch, features)")
    return int(shapes[0][1])


def _with_inputs(closed: Any, order: Sequence[int], outputs: Sequence[int]) -> Any:
    """A closed jaxpr with some of its inputs, in another order, and some of its outputs."""
    avals = [closed.in_avals[i] for i in order]

    def reordered(*args: Any) -> list[Any]:
        placed = dict(zip(order, args, strict=True))
        # What is not among them is used by nothing.
        found = core.jaxpr_as_fun(closed)(*(placed.get(i) for i in range(len(closed.in_avals))))
        return [found[i] for i in outputs]

    return jax.make_jaxpr(reordered)(*avals)
