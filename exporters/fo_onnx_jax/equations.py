"""A recurrence as ONNX writes it: the weights of a LSTM, GRU or RNN, and its step as a formula.

The equations are those of the ONNX operator specification (LSTM-14, GRU-14, RNN-14, the same in opset 22)::

    RNN    h' = f(x Wᵀ + h Rᵀ + b)
    GRU    z = σ(…)   r = σ(…)   n = f(x Wnᵀ + wb + r ∘ (h Rnᵀ + rb))      linear_before_reset = 1
                                 n = f(x Wnᵀ + wb + (r ∘ h) Rnᵀ + rb)      linear_before_reset = 0
           h' = (1 - z) ∘ n + z ∘ h                                     gates in the order z, r, n
    LSTM   i, o, f = σ(…)   g = f(…)   c' = f ∘ c + i ∘ g   h' = o ∘ k(c')   gates in the order i, o, f, g
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recurrence:
    """A scan as one of ONNX's recurrent operators.

    Attributes:
        kind: ``"LSTM"``, ``"GRU"`` or ``"RNN"``.
        input_weights: W (gates·hidden, features), the gates in ONNX's order.
        recurrent_weights: R (gates·hidden, hidden).
        input_bias: Wb (gates·hidden,).
        recurrent_bias: Rb (gates·hidden,); not 0 only inside of a reset gate.
        activations: ONNX's names, in the operator's order.
        linear_before_reset: The attribute of GRU.
        reverse: Whether the scan goes from the last step to the first.
        length: The number of steps.
        sequences: Which of the scan's sequences (by position) are the features, joined in this order.
        hidden: Which of the scan's carries is h.
        memory: Which is c, for an LSTM.
        stacked: The number of outputs that are the sequence of h.
        kept: The carries that the body hands on unchanged.
    """

    kind: str
    input_weights: Matrix
    recurrent_weights: Matrix
    input_bias: Matrix
    recurrent_bias: Matrix
    activations: tuple[str, ...]
    linear_before_reset: bool
    reverse: bool
    length: int
    sequences: tuple[int, ...]
    hidden: int
    memory: int | None
    stacked: int
    kept: tuple[int, ...]

    @property
    def hidden_size(self) -> int:
        """The size of h."""
        return int(self.recurrent_weights.shape[1])

    def step(self, x: Any, h: Any, c: Any = None, *, numpy: Any = np) -> tuple[Any, Any]:
        """One step by ONNX's equations: h' and, for an LSTM, c'.

        Args:
            x: (rows, features).
            h: (rows, hidden).
            c: (rows, hidden), for an LSTM.
            numpy: The module to compute with: numpy or ``jax.numpy``.
        """
        gates = len(self.input_bias) // self.hidden_size
        from_x = numpy.split(x @ self.input_weights.T + self.input_bias, gates, axis=1)
        from_h = numpy.split(h @ self.recurrent_weights.T + self.recurrent_bias, gates, axis=1)
        if self.kind == "RNN":
            return _apply(self.activations[0], from_x[0] + from_h[0], numpy), None
        first, second = (_apply(self.activations[0], from_x[i] + from_h[i], numpy) for i in (0, 1))
        if self.kind == "GRU":
            inside = second * from_h[2]
            if not self.linear_before_reset:
                last = slice(2 * self.hidden_size, None)
                inside = (second * h) @ self.recurrent_weights[last].T + self.recurrent_bias[last]
            n = _apply(self.activations[1], from_x[2] + inside, numpy)
            return (1 - first) * n + first * h, None
        third = _apply(self.activations[0], from_x[2] + from_h[2], numpy)
        c = third * c + first * _apply(self.activations[1], from_x[3] + from_h[3], numpy)
        return second * _apply(self.activations[2], c, numpy), c


def _apply(activation: str, v: Any, numpy: Any) -> Any:
    if activation == "Sigmoid":
        # By tanh, which does not overflow.
        return 0.5 * numpy.tanh(0.5 * v) + np.float32(0.5)
    return numpy.tanh(v) if activation == "Tanh" else numpy.maximum(v, 0)
