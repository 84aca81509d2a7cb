"""Nodes for skl2onnx's graphs: what a converter needs, in one notation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOAT, INT64, STRING, DOUBLE = 1, 7, 8, 11
"""Element types of ``onnx.TensorProto``."""


Converter = Callable[[Any, Any, Any], None]
"""A function that skl2onnx calls with its scope, the operator and its container."""
REFUSED = "fo_onnx_sklearn/refused/"
"""Begins the names of tensors (n, 1) that are NaN for rows that the estimator refuses, and 0 for the others."""


class Graph:
    """The graph that one estimator is written into.

    Args:
        scope: skl2onnx's names.
        operator: The estimator with its inputs and outputs.
        container: skl2onnx's nodes.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        self._scope, self._operator, self._container = scope, operator, container

    def node(
        self, op: str, inputs: Sequence[str], output: str | None = None, *, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node and return the name of its output."""
        output = output or str(self._scope.get_unique_variable_name(op.lower()))
        name = self._scope.get_unique_operator_name(op)
        self._container.add_node(op, list(inputs), [output], op_domain=domain, name=name, **attributes)
        return output

    def constant(self, values: Any, kind: int = DOUBLE) -> str:
        """Add a constant tensor and return its name."""
        name = str(self._scope.get_unique_variable_name("constant"))
        array = np.asarray(values)
        content = [str(v).encode() for v in array.ravel()] if kind == STRING else array.ravel().tolist()
        self._container.add_initializer(name, kind, list(array.shape), content)
        return name

    def cast(self, name: str, to: int) -> str:
        """Cast `name` to another element type."""
        return self.node("Cast", [name], to=to)

    def rows(self) -> str:
        """Return the rows (n, features) in float64: the estimator's inputs side by side."""
        parts = [self.cast(i.full_name, DOUBLE) for i in self._operator.inputs]
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=1)

    def columns(self) -> list[tuple[str, bool]]:
        """Return each column of the inputs as (n, 1), and whether it is text; numbers are in float64."""
        from skl2onnx.common.data_types import StringTensorType

        columns = []
        for value in self._operator.inputs:
            text = isinstance(value.type, StringTensorType)
            whole = value.full_name if text else self.cast(value.full_name, DOUBLE)
            width = int(value.type.shape[1])
            for i in range(width):
                at = self.constant([i], INT64)
                columns.append((whole if width == 1 else self.node("Gather", [whole, at], axis=1), text))
        return columns

    def refuse_unless(self, sound: str) -> None:
        """Make distributions NaN in the rows for which `sound`, (n, 1) in float64, is 0; elsewhere it is 1."""
        # 0 / 0 is NaN, and 0 / 1 is 0.
        name = REFUSED + str(self._scope.get_unique_variable_name("row"))
        self.node("Div", [self.constant(0.0), sound], name)

    def refuse_infinity(self, rows: str, width: int, *, takes_nan: bool = False) -> None:
        """Make distributions NaN where `rows` (n, width), in float64, hold infinity; or NaN, unless the estimator takes it."""
        if takes_nan:
            rows = self.node("Where", [self.node("IsNaN", [rows]), self.constant(0.0), rows])
        # A sum of small parts is finite if all numbers are; 0 times that is 0, else NaN.
        total = self.node("MatMul", [rows, self.constant(np.full((width, 1), 1e-20))])
        self.node("Mul", [total, self.constant(0.0)], REFUSED + str(self._scope.get_unique_variable_name("row")))

    def give(self, rows: str) -> None:
        """Give `rows`, in float64, as the transformer's output, in the type that skl2onnx has announced to the next step."""
        output = self._operator.outputs[0]
        to = {"FloatTensorType": FLOAT, "Int64TensorType": INT64}.get(type(output.type).__name__, DOUBLE)
        self.node("Cast", [rows], output.full_name, to=to)

    def member(self, estimator: Any, *, raw_scores: bool = False) -> str:
        """Add an estimator with the same inputs, and return its distributions or raw scores (n, k) in float64."""
        from skl2onnx._supported_operators import sklearn_operator_name_map
        from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType

        alias = sklearn_operator_name_map.get(type(estimator))
        if alias is None:
            raise NotImplementedError(f"there is no converter for {type(estimator).__name__}")
        if raw_scores:
            if not self._container.has_options(estimator, "raw_scores"):
                raise NotImplementedError(f"the converter of {type(estimator).__name__} gives no raw scores")
            for target in (self._container, self._scope):
                target.add_options(id(estimator), {"raw_scores": True})
        operator = self._scope.declare_local_operator(alias, estimator)
        operator.inputs = self._operator.inputs
        label = self._scope.declare_local_variable("label", Int64TensorType())
        probs = self._scope.declare_local_variable("probs", DoubleTensorType())
        operator.outputs.append(label)
        operator.outputs.append(probs)
        return self.cast(probs.full_name, DOUBLE)

    def finish(self, probs: str, classes: NDArray[Any]) -> None:
        """Give the distributions (n, k), in float64, and the most probable class, as the estimator's outputs."""
        label, probabilities = (o.full_name for o in self._operator.outputs[:2])
        best = self.node("ArgMax", [probs], axis=1, keepdims=0)
        numbers = classes.dtype.kind in "iubf"
        values = self.constant(classes.astype(np.int64) if numbers else classes, INT64 if numbers else STRING)
        self.node("Gather", [values, best], label)
        self.node("Cast", [probs], probabilities, to=DOUBLE)
