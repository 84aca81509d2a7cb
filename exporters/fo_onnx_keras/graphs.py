"""TensorFlow's graphs as they are written down: which nodes a tensor comes from, which functions nodes call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def nodes_leading_to(nodes: Mapping[str, Any], tensors: Iterable[str]) -> list[str]:
    """Return the names of the nodes that tensors come from, the last first.

    Args:
        nodes: The nodes of a graph (``NodeDef``) by name.
        tensors: Names of tensors or nodes.
    """
    names: dict[str, None] = {}
    pending = list(tensors)
    while pending:
        name = pending.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in names:
            names[name] = None
            pending += nodes[name].input
    return list(names)


def functions_called(functions: Mapping[str, Iterable[Any]], nodes: Iterable[Any]) -> list[str]:
    """Return the names of the functions that nodes call, and that these call, in the same order in each process.

    Args:
        functions: The nodes of each function of the graph's library, by the name of the function.
        nodes: The nodes.
    """
    names: dict[str, None] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        # Sorted, since the order of the attributes is another in each process.
        attributes = [f.name for _, v in sorted(node.attr.items()) for f in (v.func, *v.list.func)]
        for name in (node.op, *attributes):
            if name in functions and name not in names:
                names[name] = None
                pending += functions[name]
    return list(names)
