"""Recurrences as ONNX nodes.

An LSTM becomes ONNX's operator, which ONNX Runtime 1.32 runs at 0.9 to 1.6 times the speed of ``jax.jit``. With its GRU
it reaches 0.8 to 1.0, and with its RNN 0.2, so that these are unrolled into matrix products and activations up to
`UNROLLED_STEPS` steps: 1.1 to 1.6 and 1.2 to 1.9. Measured by ``benchmarks/bench_recurrence.py`` with 24 steps, 32 features
and 64 units at batch 64 to 1,024, on two cores, in sessions of one thread side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .equations import Recurrence

UNROLLED_STEPS = 128
"""Steps up to which a GRU or RNN is unrolled. The conversion takes 3 s for a GRU of so many, and more than in proportion."""


def has_fast_nodes(found: Recurrence) -> bool:
    """Whether ONNX Runtime runs the nodes made here at least as fast as ``jax.jit`` runs the scan, from batch 64 on."""
    return found.kind == "LSTM" or found.length <= UNROLLED_STEPS


def in_tensorflow(
    x: Any, *initial: Any, recurrence: Recurrence, _in_avals: Sequence[Any], _out_aval: Sequence[Any]
) -> list[Any]:
    """The rule of `fo_onnx_jax.recurrences.onnx_recurrence_p` in jax2tf: a placeholder for the nodes."""
    from fo_onnx_tfgraph.foreign import foreign_op

    unrolled = recurrence.kind != "LSTM" and recurrence.length <= UNROLLED_STEPS

    def build(graph: Any, inputs: Sequence[str]) -> Sequence[str]:
        return (_unrolled if unrolled else _operator)(graph, recurrence, inputs)

    outputs = [(np.dtype(np.float32), tuple(a.shape)) for a in _out_aval]
    return foreign_op([x, *initial], outputs, build, name=recurrence.kind)


def _operator(graph: Any, found: Recurrence, inputs: Sequence[str]) -> list[str]:
    """The ONNX operator."""
    nodes = _Nodes(graph, found.kind)
    x, *initial = inputs
    outer = [nodes.make("Unsqueeze", [i, nodes.axes(0)]) for i in initial]
    weights = [nodes.const(v[None]) for v in (found.input_weights, found.recurrent_weights)]
    bias = nodes.const(np.concatenate([found.input_bias, found.recurrent_bias])[None])
    attributes: dict[str, Any] = {
        "hidden_size": found.hidden_size,
        "direction": "reverse" if found.reverse else "forward",
        "activations": list(found.activations),
    }
    if found.kind == "GRU":
        attributes["linear_before_reset"] = int(found.linear_before_reset)
    all_h, *last = nodes.make_several(found.kind, [x, *weights, bias, "", *outer], 1 + len(initial), attributes)
    squeezed = [nodes.make("Squeeze", [v, nodes.axes(0)]) for v in last]
    return squeezed + ([nodes.make("Squeeze", [all_h, nodes.axes(1)])] if found.stacked else [])


def _unrolled(graph: Any, found: Recurrence, inputs: Sequence[str]) -> list[str]:
    """A GRU or RNN, step by step."""
    nodes = _Nodes(graph, found.kind)
    x, h = inputs
    slices = nodes.make_several("Split", [x, nodes.const(np.ones(found.length, np.int64))], found.length, {"axis": 0})
    step = (_gru_step if found.kind == "GRU" else _rnn_step)(nodes, found)
    all_h: dict[int, str] = {}
    for t in reversed(range(found.length)) if found.reverse else range(found.length):
        h = step(nodes.make("Squeeze", [slices[t], nodes.axes(0)]), h)
        all_h[t] = h
    if not found.stacked:
        return [h]
    rows = [nodes.make("Unsqueeze", [all_h[t], nodes.axes(0)]) for t in range(found.length)]
    return [h, nodes.make("Concat", rows, {"axis": 0})]


Step = Callable[[str, str], str]
"""``step(x, h)`` makes the nodes of one step and gives the new h."""


def _rnn_step(nodes: _Nodes, found: Recurrence) -> Step:
    w, r, bias = map(
        nodes.const, (found.input_weights, found.recurrent_weights, found.input_bias + found.recurrent_bias)
    )

    def step(x: str, h: str) -> str:
        return nodes.make(found.activations[0], [nodes.linear(h, r, nodes.linear(x, w, bias))])

    return step


def _gru_step(nodes: _Nodes, found: Recurrence) -> Step:
    size = found.hidden_size
    gates, last = slice(0, 2 * size), slice(2 * size, None)
    w, r, bias = map(
        nodes.const, (found.input_weights[gates], found.recurrent_weights[gates], (found.input_bias + found.recurrent_bias)[gates])
    )  # fmt: skip
    wn, rn = nodes.const(found.input_weights[last]), nodes.const(found.recurrent_weights[last])
    outer, inner = found.input_bias[last], found.recurrent_bias[last]
    if not found.linear_before_reset:
        outer, inner = outer + inner, 0 * inner
    outer_bias, inner_bias = nodes.const(outer), nodes.const(inner)

    def step(x: str, h: str) -> str:
        both = nodes.make(found.activations[0], [nodes.linear(h, r, nodes.linear(x, w, bias))])
        update, reset = nodes.make_several("Split", [both, nodes.const(np.array([size, size]))], 2, {"axis": 1})
        from_x = nodes.linear(x, wn, outer_bias)
        if found.linear_before_reset:
            before = nodes.make("Add", [nodes.make("Mul", [reset, nodes.linear(h, rn, inner_bias)]), from_x])
        else:
            before = nodes.linear(nodes.make("Mul", [reset, h]), rn, from_x)
        candidate = nodes.make(found.activations[1], [before])
        # n + z (h - n): three passes over the rows instead of the four of (1 - z) n + z h.
        return nodes.make("Add", [candidate, nodes.make("Mul", [update, nodes.make("Sub", [h, candidate])])])

    return step


class _Nodes:
    """Makes nodes in a tf2onnx graph, and each constant once."""

    def __init__(self, graph: Any, name: str) -> None:
        self._graph, self._name = graph, name
        self._made: dict[Any, str] = {}

    def make(self, op: str, inputs: Sequence[str], attributes: dict[str, Any] | None = None) -> str:
        return self.make_several(op, inputs, 1, attributes)[0]

    def make_several(
        self, op: str, inputs: Sequence[str], outputs: int, attributes: dict[str, Any] | None = None
    ) -> list[str]:
        # Without inference: tf2onnx would infer the shapes of each node alone, and nothing here asks for them.
        node = self._graph.make_node(
            op, list(inputs), attr=attributes or {}, output_count=outputs, infer_shape_dtype=False, op_name_scope=self._name
        )  # fmt: skip
        return list(node.output)

    def linear(self, x: str, weights: str, bias: str) -> str:
        """X Wᵀ + b."""
        return self.make("Gemm", [x, weights, bias], {"transB": 1})

    def const(self, value: Any) -> str:
        """A constant; int64 where it holds integers."""
        array = np.ascontiguousarray(value)
        key = (array.shape, array.dtype, array.tobytes())
        if key not in self._made:
            from tf2onnx.utils import make_name

            self._made[key] = self._graph.make_const(make_name(self._name), array).output[0]
        return self._made[key]

    def axes(self, axis: int) -> str:
        return self.const(np.array([axis], np.int64))
