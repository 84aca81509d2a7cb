"""Operators that mean something else in ONNX at values that ordinary rows do not have: the list, with reasons and sources.

A model whose graph holds one of them is probed with synthetic rows of these values (`probes.py`). What is not listed here is
not probed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Hazard:
    """Operators, and at which values they differ.

    Attributes:
        operators: Their names.
        values: Which synthetic rows show it: ``"indices"``, ``"ties"``, ``"masks"``, ``"zeros"`` or ``"extremes"``.
        reason: What differs.
        source: Where that is written.
    """

    operators: tuple[str, ...]
    values: str
    reason: str
    source: str


HAZARDS = (
    Hazard(
        ("Gather", "GatherElements", "GatherND"),
        "indices",
        "a negative index counts from the end in ONNX; frameworks refuse, wrap, clip or fill there",
        "https://onnx.ai/onnx/operators/onnx__Gather.html, https://docs.jax.dev/en/latest/_autosummary/jax.numpy.take.html",
    ),
    Hazard(
        ("OneHot", "Equal"),
        "indices",
        "an index outside of the classes gives zeros in ONNX (torch's one_hot is exported as Equal); frameworks refuse it or give zeros",
        "https://onnx.ai/onnx/operators/onnx__OneHot.html, "
        "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html",
    ),
    Hazard(
        ("ScatterElements", "ScatterND"),
        "indices",
        "an index out of bounds is an error in ONNX; some frameworks drop it",
        "https://onnx.ai/onnx/operators/onnx__ScatterElements.html",
    ),
    Hazard(
        ("TopK", "ArgMax", "ArgMin"),
        "ties",
        "of equal values ONNX takes the first; torch promises none",
        "https://onnx.ai/onnx/operators/onnx__TopK.html, https://docs.pytorch.org/docs/stable/generated/torch.topk.html",
    ),
    Hazard(
        ("Softmax", "Attention"),
        "masks",
        "a softmax over nothing but −∞ is NaN in ONNX; attention gives 0 there in torch",
        "https://onnx.ai/onnx/operators/onnx__Softmax.html, https://github.com/pytorch/pytorch/issues/41508",
    ),
    Hazard(
        ("Div", "Mod"),
        "zeros",
        "an integer division by zero is an error or a number of its own",
        "https://onnx.ai/onnx/operators/onnx__Div.html",
    ),
    Hazard(
        ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"),
        "extremes",
        "thresholds are compared in float32 in ONNX",
        "https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html",
    ),
)


def find_hazards(model: onnx.ModelProto) -> list[Hazard]:
    """Return those of `HAZARDS` that a graph holds, in its subgraphs and functions too.

    Indices that depend on shapes alone are the same for every row.
    """
    dependent = {value.name for value in model.graph.input}
    operators = set()
    for node in _iter_nodes(model.graph.node):
        if node.op_type in ("Shape", "Size"):
            continue
        if not dependent.isdisjoint(node.input) or any(a.HasField("g") for a in node.attribute):
            dependent.update(node.output)
            is_lookup = node.op_type in ("Gather", "GatherElements", "GatherND")
            if not is_lookup or node.input[1] in dependent:
                operators.add(node.op_type)
    for function in model.functions:
        operators |= {node.op_type for node in _iter_nodes(function.node)}
    return [hazard for hazard in HAZARDS if not operators.isdisjoint(hazard.operators)]


def _iter_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _iter_nodes(attribute.g.node)
