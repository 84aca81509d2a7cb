"""Einstein sums of two tensors as one matrix product, which is what they are in attention and in dense layers.

tf2onnx takes them apart by the rules for any sum, with axes that are put in and taken out and lengths that are calculated at run time:
thirty nodes for the scores of an attention, which no optimiser recognises as a product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .nodes import Nodes


def einsum(nodes: Nodes) -> str:
    """Make a MatMul between transpositions, or between reshapes if it is a product with weights; else an Einsum, as tf2onnx does."""
    equation = nodes.text("equation")
    labels = equation.replace(" ", "").replace("->", ",").split(",")
    if len(labels) == 3 and all(term.isalpha() and len(set(term)) == len(term) for term in labels):
        a, b, out = labels
        batch = [x for x in a if x in b and x in out]
        left, right = [x for x in a if x not in b], [x for x in b if x not in a]
        summed = [x for x in a if x in b and x not in out]
        if sorted(batch + left + right) == sorted(out) and left and right and summed:
            if len(left) == len(right) == len(summed) == 1:
                return _multiply(nodes, batch, summed)
            lengths = _lengths(nodes, a, b)
            is_matrix = all(lengths[x] > 0 for x in b) and sum(lengths[x] < 1 for x in left) <= 1
            if not batch and is_matrix:
                return _multiply_with_weights(nodes, left, summed, right, lengths)
    small = equation.lower()
    # What takes other sums apart knows small letters only.
    return nodes.make("Einsum", *nodes.inputs, equation=small if len(set(small)) == len(set(equation)) else equation)


def _lengths(nodes: Nodes, a: str, b: str) -> dict[str, int]:
    """Return the length of each axis by its label, -1 if it is not known."""
    lengths: dict[str, int] = {}
    for term, name in zip((a, b), nodes.inputs, strict=True):
        try:
            lengths |= {x: length for x, length in zip(term, nodes.shape(name), strict=True) if lengths.get(x, -1) < 1}
        except ValueError:
            lengths |= {x: -1 for x in term if x not in lengths}
    return lengths


def _multiply(nodes: Nodes, batch: Sequence[str], summed: Sequence[str]) -> str:
    """Make the product of two tensors of matrices, in the order in which fewer of them, or of the result, are transposed."""
    a, b, out = nodes.text("equation").replace(" ", "").replace("->", ",").split(",")

    def orders(first: str, second: str) -> tuple[list[str], list[str], list[str]]:
        rows, columns = ([x for x in term if x not in (*batch, *summed)] for term in (first, second))
        return [*batch, *rows, *summed], [*batch, *summed, *columns], [*batch, *rows, *columns]

    def count_transposed(operands: Sequence[tuple[str, str]]) -> tuple[int, bool]:
        first, second, result = orders(*(term for term, _ in operands))
        return (list(operands[0][0]) != first) + (list(operands[1][0]) != second), list(out) != result

    operands = list(zip((a, b), nodes.inputs, strict=True))
    operands = min(operands, operands[::-1], key=count_transposed)
    *needed, result = orders(*(term for term, _ in operands))
    product = nodes.make(
        "MatMul", *(_ordered(nodes, name, term, order) for (term, name), order in zip(operands, needed, strict=True))
    )
    return _ordered(nodes, product, result, out)


def _multiply_with_weights(
    nodes: Nodes, left: Sequence[str], summed: Sequence[str], right: Sequence[str], lengths: dict[str, int]
) -> str:
    """Make the product with a tensor of known shape, whose axes are taken together to those of a matrix.

    At most one of the other axes has an unknown length. Lengths are written out: a 0, which keeps an axis, means another one
    once tf2onnx has joined two reshapes.
    """
    a, b, out = nodes.text("equation").replace(" ", "").replace("->", ",").split(",")
    rows = _ordered(nodes, nodes.inputs[0], a, [*left, *summed])
    shape = [math.prod(lengths[x] for x in group) for group in (summed, right)]
    if len(summed) > 1:
        rows = nodes.make("Reshape", rows, nodes.const([*(lengths[x] for x in left), shape[0]], np.int64))
    matrix = _ordered(nodes, nodes.inputs[1], b, [*summed, *right])
    product = nodes.make("MatMul", rows, nodes.make("Reshape", matrix, nodes.const(shape, np.int64)))
    if len(right) > 1:
        product = nodes.make("Reshape", product, nodes.const([lengths[x] for x in (*left, *right)], np.int64))
    return _ordered(nodes, product, [*left, *right], out)


def _ordered(nodes: Nodes, name: str, labels: Sequence[str], order: Sequence[str]) -> str:
    """Make a transposition of axes with these labels to another order, if it is another."""
    permutation = [list(labels).index(label) for label in order]
    return name if permutation == sorted(permutation) else nodes.make("Transpose", name, perm=permutation)
