"""The large weights of a JAX function, kept out of the TensorFlow graph.

jax2tf writes what a function closes over into the graph, whose serialised form ends at 2 GiB. Arguments that are TensorFlow tensors
from outside of the graph stay outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hoisting import hoisted

FEW_BYTES = 1_000_000
"""Size up to which weights may stay in the graph."""


def large_weights(function: Callable[..., Any], arguments: Sequence[Any], least_bytes: int) -> dict[int, NDArray[Any]]:
    """The larger weights of a function, by their place among all, where the whole has at least `least_bytes`; else none.

    Args:
        function: A function over arrays that returns one.
        arguments: ShapeDtypeStructs in the dtypes and shapes of its arguments; sizes may be symbolic.
        least_bytes: The size from which on the weights are a burden.
    """
    _, weights = hoisted(function, arguments)
    if sum(map(_bytes, weights)) < least_bytes:
        return {}
    # bfloat16 and keys of random numbers are nothing that TensorFlow and ONNX Runtime calculate with.
    plain = {i: w for i, w in enumerate(weights) if np.dtype(getattr(w.dtype, "type", object)).kind in "fiub"}
    return {i: np.asarray(w) for i, w in plain.items() if _bytes(w) >= FEW_BYTES}


def with_weights_given(function: Callable[..., Any], places: Sequence[int]) -> Callable[..., Any]:
    """`function` that takes the weights at these places as a list, before its own arguments.

    It is traced anew in each call, since symbolic sizes are those of one conversion; its weights come in the same order.
    """

    def given(some: Sequence[Any], *arrays: Any) -> Any:
        step, weights = hoisted(function, arrays)
        for place, weight in zip(places, some, strict=True):
            weights[place] = weight
        return step(weights, *arrays)

    return given


def _bytes(weight: Any) -> int:
    return int(np.size(weight)) * int(weight.dtype.itemsize)
